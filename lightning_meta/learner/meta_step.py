"""The meta-step, evaluation over tasks and checkpoints: what no algorithm changes, around its two pure functions."""

import copy
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode, Predictions
from lightning_meta.learner.carry import Carry
from lightning_meta.learner.checks.checkpoint import refuse_checkpoint
from lightning_meta.learner.checks.trainer import refuse_accumulation, refuse_divergence, refuse_ranks
from lightning_meta.learner.chunk_size import TaskChunk
from lightning_meta.learner.scores import EpisodeScores
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, map_tasks, meta_gradient, with_gradient
from lightning_meta.params import Params, map_params, trainable


class MetaStep(EpisodeScores):
    """Maps the functions of one task over a batch of tasks, and hands the meta-gradient to Lightning.

    Args:
        loss: as in `MetaLearner`.
        evaluation_steps: inner steps in evaluation.
        outer_reduction: as in `MetaLearner`.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
    """

    serial = False
    task_carry = False  # whether every task has a carry of its own, the task axis in front, instead of one for all
    meta_steps = 0  # that the weights have been trained for
    train_seconds = 0.0  # which that took, with validation

    def __init__(
        self,
        loss: Callable[..., Tensor],
        evaluation_steps: int,
        outer_reduction: Literal["mean", "sum"],
        task_chunk: int | Literal["auto"],
        compile: bool,  # noqa: A002
    ) -> None:
        super().__init__(loss, evaluation_steps)
        self.outer_reduction = outer_reduction
        self.chunk = TaskChunk(task_chunk)
        self._evaluation_chunk = TaskChunk(task_chunk)  # so that no score depends on what training chose
        self.vectorised = task_chunk != 1
        self._compile = compile
        self.phase: Hashable = None
        self.carry = Carry()
        self._members: list[tuple[Params, Any]] = []  # of an ensemble
        self._recorded_predictions: Callable[[Params, Episode, Any], Predictions] | None = None

    # What an algorithm says: pure functions of one task, and what they start from.

    @abstractmethod
    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Loss of one task, whose gradient in ``params`` is the algorithm's meta-gradient, and the new carry.

        Args:
            params: the meta-parameters, `meta_parameters`.
            task: one task, without the task axis.
            carry: what outlives a meta-step without being a parameter.
            progress: how much of the run is done, 0 to 1, a scalar.
        """

    @abstractmethod
    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task before adaptation and after every inner step."""

    def meta_parameters(self) -> Params:
        """The values of everything that is meta-learned, by name."""
        return trainable(self)

    def training_carry(self, episode: Episode) -> Any:
        """What a meta-step on these tasks starts from."""
        return self.carry.tree()

    def evaluation_carry(self, episode: Episode) -> Any:
        """What an evaluation of these tasks starts from."""
        return self.carry.tree()

    def keep_carry(self, carry: Any) -> None:
        """Take over what a meta-step leaves."""
        if list(self.carry.buffers()):
            ranks, reduce = self.trainer.world_size, self.trainer.strategy.reduce
            self.carry.assign(self.carry.average(carry, reduce) if ranks > 1 else carry)

    def phase_at(self, progress: float) -> Hashable:
        """What of `outer_loss` changes in kind during a run: it finds this in ``self.phase``, and is traced anew."""
        return None

    # The meta-step.

    def setup(self, stage: str) -> None:
        """Refuse what cannot be trained in this way, and prepare the gradient."""
        carries = self.task_carry or bool(list(self.carry.buffers()))
        refuse_ranks(self.serial, self.task_carry, type(self).__name__, self.trainer.world_size)
        refuse_accumulation(carries, self.trainer.accumulate_grad_batches)
        self._make_gradient()

    def _make_gradient(self) -> None:
        gradient = chunk_gradient(self.outer_loss, self.task_carry)
        self._gradient = Compiled(gradient, self._constants) if self._compile else gradient
        # Launching an evaluation's operations one by one costs a GPU most of its time, and a CPU little.
        recorded = self._compile and self.trainer.strategy.root_device.type == "cuda"
        mapped = Compiled(self._map_predictions, self._constants, "an evaluation") if recorded else None
        self._recorded_predictions = mapped

    def _begin_phase(self, progress: float) -> None:
        phase = self.phase_at(progress)
        if phase != self.phase:
            self.phase = phase
            self._make_gradient()

    def teardown(self, stage: str) -> None:
        """Drop the graphs, which cannot be pickled."""
        del self._gradient
        self._recorded_predictions = None

    def _constants(self) -> Iterator[Tensor]:
        """What `outer_loss` may use without being given it."""
        yield from self.parameters()
        yield from self.buffers()

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """One meta-step: a scalar whose value is the outer loss and whose gradient is the meta-gradient."""
        strategy, ranks = self.trainer.strategy, self.trainer.world_size
        self._begin_phase(self.trainer.global_step / max(self.trainer.max_steps, 1))
        result = self.meta_gradient(episode)
        refuse_divergence(result, episode, self.trainer.global_step, strategy)
        self.keep_carry(result.carry)
        loss, grads = result.losses.mean(), result.grads
        if self.outer_reduction == "sum":  # DDP takes the mean over ranks, and Lightning over accumulated batches
            parts = ranks * self.trainer.accumulate_grad_batches
            loss, grads = result.losses.sum() * ranks, map_params(lambda grad: grad * parts, grads)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            self.log_training(loss, episode)
        return with_gradient(loss, grads, dict(self.named_parameters()))

    def meta_gradient(self, episode: Episode) -> MetaGradient:
        """The meta-gradient of a batch of tasks, in chunks of a size that is fast and fits into memory."""
        params = self.meta_parameters()
        progress = torch.tensor(self.trainer.global_step / max(self.trainer.max_steps, 1), device=self.device)

        def run(tasks: Episode, chunk: int) -> MetaGradient:
            return meta_gradient(
                self._gradient, params, tasks, self.training_carry(tasks), progress,
                chunk=chunk, reduction=self.outer_reduction, serial=self.serial, task_carry=self.task_carry,
            )  # fmt: skip

        tasks = 1 if self.serial else len(episode.number)
        share = self.trainer.strategy.broadcast
        self.chunk.choose(lambda size: run(next(episode.chunks(size)), size), tasks, self.device, share)
        return self.chunk.halving(lambda size: run(episode, size), tasks)

    def on_train_start(self) -> None:
        """Start the clock where an interrupted run stopped it."""
        self._clock = time.perf_counter() - self.train_seconds

    def on_train_batch_end(self, outputs: Any, batch: Episode, batch_idx: int) -> None:
        """Count meta-steps and their time."""
        self.meta_steps = self.trainer.global_step
        self.train_seconds = time.perf_counter() - self._clock

    def all_predictions(self, episode: Episode) -> Predictions:
        """`predictions` of every task, chunk by chunk: every tensor (tasks, steps + 1, rows, outputs)."""

        def run(size: int) -> Predictions:
            chunks = [self._mean_predictions(tasks) for tasks in episode.chunks(size)]
            return Predictions(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

        return self._evaluation_chunk.halving(run, len(episode.number))

    def _mean_predictions(self, tasks: Episode) -> Predictions:
        own = self.evaluation_carry(tasks)
        weights = self._members or [(self.meta_parameters(), own)]
        run = self._recorded_predictions or self._map_predictions
        members = [run(params, tasks, own if self.task_carry else carry) for params, carry in weights]
        return Predictions(*(sum(parts) / len(members) for parts in zip(*members, strict=True)))

    def _map_predictions(self, params: Params, tasks: Episode, carry: Any) -> Predictions:
        predictions: Predictions = map_tasks(
            self.predictions, (None, 0, 0 if self.task_carry else None), params, tasks, carry
        )
        return predictions

    @property
    def members(self) -> int:
        """Sets of weights over which predictions are the mean."""
        return len(self._members) or 1

    def load_members(self, states: list[dict[str, Any]]) -> None:
        """Take predictions as the mean over these weights (``state_dict``s); over its own when there are none."""
        own = copy.deepcopy(self.state_dict())
        self._members = []
        for state in states:
            self.load_state_dict(state)
            self._members.append(pytree.tree_map(torch.clone, (self.meta_parameters(), self.carry.tree())))
        self.load_state_dict(own)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what loading has to compare."""
        checkpoint["train_seconds"] = self.train_seconds
        checkpoint["task_chunk"] = self.chunk.size if self.chunk.chosen else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another architecture or algorithm, and go on with its counts."""
        refuse_checkpoint(self.state_dict(), checkpoint["state_dict"])
        self.meta_steps = checkpoint["global_step"]
        # An early best checkpoint, tested after the fit, does not shorten the run.
        self.train_seconds = max(self.train_seconds, checkpoint.get("train_seconds", 0.0))
        if checkpoint.get("task_chunk") is not None:
            self.chunk.restore(checkpoint["task_chunk"])
