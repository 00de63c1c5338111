"""Sums of inner gradients: Nichol, Achiam and Schulman, arXiv 1803.02999, section 6.1 and figure 3."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import SGD

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, detach, straight_through


class GradientCombination(MetaLearner):
    """Take as meta-gradient a weighted sum of the gradients that the inner loop meets on its way.

    With w_0 = phi and L_i the loss on the i-th mini-batch of the support set:

        g_i = grad L_i(w_{i-1}),   w_i = w_{i-1} - a g_i,   meta-gradient = sum_i weights_i g_i

    Weights (0, ..., 0, 1) are first-order MAML whose query set is the last mini-batch. Weights (1, ..., 1) are Reptile
    with inner SGD, whose phi - w_k is a times this sum. Weights (1, 0, ...) are joint training, which learns no
    initialisation. Query sets are not used in training.

    Args:
        backbone: the network that is adapted.
        inner: the inner loop.
        weights: of the gradient of every inner step; as many as ``inner.steps``.
        optimizer: makes the outer optimizer; SGD of rate eps a is the paper's outer step eps.

    Raises:
        MetaLearningError: there are more or fewer weights than inner steps, or all are zero.
    """

    needs_queries = False
    trains_inner_rule = False
    needs_fixed_loss = "takes the gradient of every inner step twice, once to go on and once to add it up"

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(),
        *,
        weights: Sequence[float] = (1.0,),
        optimizer: OptimizerCallable = lambda parameters: SGD(parameters, lr=0.01),
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, optimizer=optimizer, **settings)
        self.weights = tuple(weights)
        if len(self.weights) != inner.steps:
            raise MetaLearningError(
                f"model.weights has {len(self.weights)} entries, but model.inner.steps is {inner.steps}: give one "
                "weight for each inner step"
            )
        if not any(self.weights):
            raise MetaLearningError(f"model.weights is {list(self.weights)}: at least one must differ from 0")

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """The weighted sum of the inner losses on the way, each with the derivative of the identity through the way."""
        way = islice(self.adapt(detach(params), task), len(self.weights))  # the last inner step is not needed
        losses = [
            weight * self.inner_loss(straight_through(fast, self.adapted_params(params)), task, rows)
            for weight, rows, (fast, _) in zip(self.weights, task.inner_order, way, strict=True)
            if weight
        ]
        return torch.stack(losses).sum(), carry
