"""A learned optimizer: Andrychowicz et al., "Learning to learn by gradient descent by gradient descent".

arXiv 1606.04474, by Andrychowicz, Denil, Gomez, Hoffman, Pfau, Schaul, Shillingford and de Freitas; code
https://github.com/deepmind/learning-to-learn
"""

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode, EpisodeSource, InnerBatches, Predictions, Split
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, LSTMOptimizer
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, named, trainable


class LearnedOptimizer(MetaLearner):
    """Train an inner rule, such as `LSTMOptimizer`, to optimise networks that start from random weights.

    For a task's loss f and weights theta_0 drawn for it alone, the rule's parameters descend

        sum_t f(theta_t),   theta_{t+1} = theta_t + rule(grad f(theta_t)),

    by truncated backpropagation: a meta-step unrolls ``inner.steps`` steps, and ``optimization_steps`` steps make one
    problem, after which each task gives way to a new one. Weights and the rule's state are handed from meta-step to
    meta-step as constants. What stands behind f is the support set, seen in mini-batches of ``inner.batch_size``; after
    the last step of an unroll, the mini-batch of its first one counts once more. Query sets are not used in training.

    A checkpoint holds the problems that are under way, so that a run goes on exactly.

    Args:
        backbone: the network to be optimised. Its own weights are not learned: every task starts from what the
            ``reset_parameters`` of its layers draw.
        inner: the inner loop; its optimizer must have parameters to learn.
        optimization_steps: inner steps of a problem in training, a multiple of ``inner.steps``.
        second_order: whether to differentiate the inner gradients, too; the paper drops that.

    Raises:
        MetaLearningError: the inner rule learns nothing, a layer cannot be drawn again, or problems are not a whole
            number of unrolls.
    """

    needs_queries = False
    carry_per_task = True
    seed = 0  # of the starting weights: that of the data, once there are any

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(LSTMOptimizer(), steps=20, evaluation_steps=100),
        *,
        optimization_steps: int = 100,
        second_order: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, **settings)
        if not len(self.inner_parameters):
            raise MetaLearningError(
                f"model.inner.optimizer is {type(inner.optimizer).__name__}, which has nothing to learn: set it to "
                "LSTMOptimizer"
            )
        if inner.steps < 1 or optimization_steps < 1 or optimization_steps % inner.steps:
            raise MetaLearningError(
                f"model.optimization_steps is {optimization_steps}, expected a multiple of model.inner.steps, the "
                f"{inner.steps} steps of an unroll, that is at least 1"
            )
        self.optimization_steps = optimization_steps
        self.second_order = second_order
        self._template = [copy.deepcopy(backbone).cpu()]  # in a list, so that it is not a part of the model
        self._problems: dict[str, Any] = {}  # that are under way
        _draw_anew(self._template[0])  # refuses what cannot be

    def setup(self, stage: str) -> None:
        """Take over the seed of the data, which names the starting weights."""
        source = getattr(self.trainer, "datamodule", None)
        if isinstance(source, EpisodeSource):
            self.seed = source.seed
        super().setup(stage)
        if stage == "fit":
            self._problems = {}

    def training_batches(self) -> InnerBatches:
        """Each batch of tasks comes as often as a problem has unrolls."""
        return super().training_batches()._replace(visits=self.optimization_steps // self.inner.steps)

    def meta_parameters(self) -> Params:
        """The rule's alone."""
        return {f"inner_parameters.{name}": value for name, value in trainable(self.inner_parameters).items()}

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Sum of the losses after every step of one unroll."""
        steps = self.unroll(params, task, carry, self.second_order)
        weights, state = next(steps)  # no choice of the rule's yet
        losses = []
        for rows, (weights, state) in zip(task.inner_order.roll(-1, 0), steps, strict=True):  # noqa: B007
            losses.append(self.inner_loss(weights, task, rows))
        return torch.stack(losses).sum(), carry | {"weights": weights, "state": state}

    def adapted_weights(self, params: Params, task: Episode, carry: Any, scale: float = 1.0) -> Iterator[Params]:
        """New weights, and what the rule has made of them after every step."""
        return (weights for weights, _ in self.unroll(params, task, carry, second_order=False))

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task before the first step and after every one, from new weights.

        A learned optimizer is judged as an optimizer is, by the loss of the network that it trains, so queries are seen
        in one batch only: one at a time in a batch with the whole training set would take a pass over that set for
        each, and differ only where a network has a batch norm.
        """
        outputs = [
            (self.run_backbone(weights, task.support_x), self.run_backbone(weights, task.query_x))
            for weights in self.adapted_weights(params, task, carry)
        ]
        support, query = (torch.stack(part) for part in zip(*outputs, strict=True))
        return Predictions(support, query, query)

    @staticmethod
    def scored_steps(steps: int) -> list[int]:
        """After every step: learned optimizers are compared by the curves of their losses."""
        return list(range(steps + 1))

    def unroll(self, params: Params, task: Episode, carry: Any, second_order: bool) -> Iterator[tuple[Params, Any]]:
        """The task's steps from where it is: weights and the rule's state before the first one and after each."""
        return self.adapt(params, task, carry["state"], second_order, start=carry["weights"])

    # Problems: tasks with the weights and the state of the rule that they have come to.

    def problems(self, split: Split, task_ids: Tensor) -> dict[str, Any]:
        """New problems for the tasks of these numbers; what is drawn depends on seed, split and number alone.

        Returns:
            ``task_ids``, ``weights`` and the rule's ``state``, every tensor with the task axis in front.
        """
        network, drawn = self._template[0], []
        for number in task_ids.tolist():
            digest = hashlib.sha256(f"{self.seed} {split} {number}".encode()).digest()
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
                _draw_anew(network)
            drawn.append({name: value.clone() for name, value in trainable(network).items()})
        templates = named("backbone", trainable(self))
        weights = {name: torch.stack([own[name] for own in drawn]).to(like) for name, like in templates.items()}
        state = torch.func.vmap(self.inner.optimizer.init)(weights)
        return {"task_ids": task_ids, "weights": weights, "state": state}

    def training_carry(self, episode: Episode) -> dict[str, Any]:
        """Problems that are under way, or new ones where the tasks are."""
        count, device = episode.tasks, episode.task_ids.device
        under_way: dict[str, Any] = pytree.tree_map(lambda leaf: leaf[:count].to(device), self._problems)
        if under_way and torch.equal(under_way["task_ids"], episode.task_ids):
            return under_way
        return self.problems("train", episode.task_ids)

    def evaluation_carry(self, episode: Episode) -> dict[str, Any]:
        """New problems."""
        trainer = self._trainer
        split: Split = "test"
        if trainer is not None and (trainer.training or trainer.validating or trainer.sanity_checking):
            split = "train" if trainer.training else "validation"
        return self.problems(split, episode.task_ids)

    def store_carry(self, carry: Any) -> None:
        """Problems are under way until other tasks come."""
        self._problems = carry

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the problems that are under way."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["problems"] = self._problems

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the problems that were under way."""
        super().on_load_checkpoint(checkpoint)
        self._problems = checkpoint.get("problems", {})


def _draw_anew(network: nn.Module) -> None:
    """Let all layers draw their parameters again.

    Raises:
        MetaLearningError: a layer has parameters and no ``reset_parameters``.
    """

    def draw(layer: nn.Module) -> None:
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
        elif list(layer.parameters(recurse=False)):
            raise MetaLearningError(
                f"model.backbone holds {type(layer).__name__}, which has parameters and no method reset_parameters, so "
                "that no new problem can be drawn: give it one, as torch.nn.Linear has it"
            )

    network.apply(draw)
