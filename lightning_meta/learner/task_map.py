"""Runs the outer loss of one task over a batch of tasks: in chunks, as graphs, in as many rows as memory allows."""

from collections.abc import Hashable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.learner.checks.vectorising import check_first_episode
from lightning_meta.learner.chunk_size import ChunkSize
from lightning_meta.learner.fusion import Compile, Fusion
from lightning_meta.learner.timing import seconds_of
from lightning_meta.mapping import (
    ChunkGradient,
    Compiled,
    MetaGradient,
    channels_last,
    chunk_gradient,
    meta_gradient,
    seeded,
)
from lightning_meta.process import remember_missing_gpu

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner


class TaskMap:
    """Maps a learner's ``outer_loss``, a function of one task, over tasks.

    What the network draws at random, as a dropout does, every task and every inner step draws for itself. The draws of
    a meta-step follow from the seed of the data, its number, the rank and the size of the chunks.

    Args:
        learner: whose functions are mapped.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
    """

    def __init__(self, learner: "MetaLearner", task_chunk: int | Literal["auto"], compile: Compile) -> None:  # noqa: A002
        self._learner = learner
        self.chunk = ChunkSize(task_chunk)
        self.vectorised = task_chunk != 1
        self.compiled, self.fusion = compile is not False, Fusion(compile)
        self.draws: bool | None = None  # whether training draws random numbers in the network; None before a check
        self._gradients: dict[Hashable, Any] = {}  # by variant and the modes of the modules
        self._convolves = False

    @property
    def one_by_one(self) -> bool:
        """Whether fused kernels take one task after another, as a CPU's do whose layers are worth calling them."""
        return self._convolves and self._learner.device.type == "cpu"

    @property
    def may_draw(self) -> bool:
        """Whether a second pass through the network may give other numbers."""
        return self._learner.training if self.draws is None else self.draws

    def constants(self) -> Iterator[Tensor]:
        """What the functions may use without being given it."""
        for part in self._learner.modules():
            yield from filter(torch.is_tensor, (*part._parameters.values(), *part._buffers.values()))

    def prepare(self) -> None:
        """Start a run."""
        remember_missing_gpu()
        self.release()
        self.fusion.reopen()
        self._convolves = any(isinstance(part, nn.Conv2d) for part in self._learner.modules())

    def release(self) -> None:
        """Drop the graphs, which cannot be pickled and hold memory."""
        self._gradients = {}

    def meta_gradient(self, episode: Episode, done: float) -> MetaGradient:
        """The meta-gradient of a batch of tasks.

        Args:
            episode: the tasks.
            done: how much of the run is done, 0 to 1.
        """
        learner = self._learner
        if self.draws is None:  # a loader of the user's own, of which no check before the fit has seen a task
            check_first_episode(learner, episode)
        params, variant = learner.meta_parameters(), learner.variant_at(done)
        progress = torch.full((), done, device=learner.device)  # a copy would have the host wait

        trainer = learner.trainer
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready

        def run(tasks: Episode, chunk: int, fused: bool) -> MetaGradient:
            given = params, learner.training_carry(tasks)
            weights, carry = channels_last(given) if fused and self.one_by_one else given  # once for all tasks
            draws = self.draws is not False
            own = (
                seeded(learner.device, "training", self._seed, batches, trainer.global_rank) if draws else nullcontext()
            )
            with own:
                return meta_gradient(
                    self._gradient(variant, fused), weights, tasks, carry, progress,
                    chunk=1 if fused and self.one_by_one else chunk, reduction=learner.outer_reduction,
                    serial=learner.serial, carry_per_task=learner.carry_per_task,
                )  # fmt: skip

        tasks, strategy = 1 if learner.serial else episode.tasks, trainer.strategy
        left = trainer.estimated_stepping_batches - trainer.global_step
        if not (self.draws and learner.device.type == "cpu"):  # draws may not depend on what was fastest
            self.chunk.tune(
                lambda size: run(next(episode.chunks(size)), size, False),
                tasks,
                learner.device,
                strategy.broadcast,
                left,
            )
        if not self.fusion.settled:
            self.fusion.settle(
                learner,
                self.draws,
                lambda: seconds_of(lambda: run(episode, self.chunk.size, False)),
                lambda: run(episode, self.chunk.size, True),
                self._operations,
                left,
                strategy.reduce_boolean_decision,
            )
            self._release_other_way()
        return self.chunk.halve_on_out_of_memory(
            lambda size: self.fusion.run(lambda: run(episode, size, True), lambda: run(episode, size, False)), tasks
        )

    @property
    def _seed(self) -> int:
        """That of the data, which a resumed run has again; PyTorch's where there are no such data."""
        source = getattr(self._learner._trainer, "datamodule", None)
        return source.seed if isinstance(source, EpisodeSource) else torch.initial_seed()

    def _gradient(self, variant: Hashable, fused: bool) -> ChunkGradient:
        key = variant, tuple(part.training for part in self._learner.modules())
        if key not in self._gradients:
            loss: Any = self._learner.outer_loss
            loss = loss if variant is None else partial(loss, variant=variant)
            gradient = chunk_gradient(loss, self._learner.carry_per_task)
            # Only the last variant is kept: a run does not go back to an earlier one, and graphs are large.
            self._gradients = {
                key: [Compiled(gradient, self.constants, fused=way, kept=False) for way in (False, True)]
            }
            self._gradients = self._gradients if self.compiled else {key: [gradient, gradient]}
        gradient = self._gradients[key][fused]
        return gradient.for_now() if isinstance(gradient, Compiled) else gradient

    def _release_other_way(self) -> None:
        """Free what the way that is not taken holds, on a GPU the memory of its CUDA graphs."""
        for ways in self._gradients.values():
            if isinstance(other := ways[not self.fusion.chosen], Compiled):
                other.release()

    def _operations(self) -> int:
        """In the graph that was traced last."""
        return max(gradient.operations for ways in self._gradients.values() for gradient in ways)
