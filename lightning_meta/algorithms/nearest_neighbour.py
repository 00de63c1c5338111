"""Nearest neighbour, a baseline of the papers' tables: Vinyals et al., arXiv 1606.04080, section 4.1."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.algorithms.metric_learner import NO_STEPS, compare_all, membership
from lightning_meta.episode import Episode, EpisodeSource, Predictions
from lightning_meta.learner.checks.data import refuse_regression
from lightning_meta.params import Params


class NearestNeighbour(JointTraining):
    """Classify by the support example whose features have the largest cosine with the query's.

    On raw pixels: a backbone `MLP` without hidden layers, whose last layer is given the pixels themselves.

    Args:
        backbone: a network that ends with an ``nn.Linear``, which is not used.
        loss: as in `MetaLearner`.
        outer_reduction: as in `MetaLearner`.
        optimizer: as in `MetaLearner`.
        lr_scheduler: as in `MetaLearner`.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
        replace_norms: as in `MetaLearner`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: Callable[..., Tensor] = functional.cross_entropy,
        outer_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerCallable = lambda parameters: Adam(parameters, lr=1e-3),
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        task_chunk: int | Literal["auto"] = "auto",
        compile: bool = True,  # noqa: A002
        replace_norms: bool = False,
    ) -> None:
        super().__init__(
            backbone, NO_STEPS, loss, outer_reduction, optimizer, lr_scheduler, task_chunk, compile,
            replace_norms,
        )  # fmt: skip

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task, each (1, rows, ways): there are no inner steps."""
        features = self.classify(partial(self.run_body, self.fast(params)), task)
        return compare_all(self.compare, features, membership(task, self.head.outputs))

    def refuse_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Refuse real targets, which belong to no class."""
        refuse_regression(episode, type(source).__name__, type(self).__name__)
        super().refuse_data(source, episode)

    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """For each class the largest cosine with one of its support examples, (rows, ways)."""
        cosine = functional.normalize(rows, dim=-1) @ functional.normalize(support, dim=-1).T
        others = (1 - membership) * torch.finfo(rows.dtype).min
        return (cosine[:, None] + others).amax(-1)
