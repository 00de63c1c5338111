"""Which tasks make up each batch: of training, an endless stream; of an evaluation, every task once."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from lightning_meta.episode import Episode, Split

if TYPE_CHECKING:
    from lightning_meta.data.drawing.data_module import EpisodeDataModule


class TaskSampler(DistributedSampler[tuple[Tensor, int]]):
    """Numbers of the tasks that this rank takes from each global batch, and how often it has taken them before.

    A `DistributedSampler` by name, so that Lightning does not replace it by its own, which repeats and drops tasks.

    Args:
        data: the data module that draws.
        batches: global batches of one iteration.
        size: tasks in a global batch.
        tasks: how many tasks there are; None for the stream of training tasks, from the first unused one on.
    """

    def __init__(self, data: "EpisodeDataModule", batches: int, size: int, tasks: int | None = None) -> None:
        self.data, self.batches, self.size, self.tasks = data, batches, size, tasks

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        trainer = self.data.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        start, visit, visits = 0, 0, 1
        if self.tasks is None:
            state, visits = self.data.state_dict(), self.data.inner_batches("train").visits
            start, visit = state["consumed_tasks"], state["visit"]
        for batch in range(visit, visit + self.batches):
            first = start + batch // visits * self.size
            end = first + self.size if self.tasks is None else min(first + self.size, self.tasks)
            yield torch.arange(first + rank, max(first + rank, end), ranks), batch % visits


class TaskDataset(Dataset[Episode]):
    """A split as a data set whose keys are what `TaskSampler` yields.

    Args:
        data: the data module that draws.
        split: of which it draws.
    """

    def __init__(self, data: "EpisodeDataModule", split: Split) -> None:
        self.data, self.split = copy.copy(data), split
        self._device = data.draws_to
        self.data.trainer = None  # worker processes get a copy of this object
        self._drawn: list[tuple[Tensor, Episode]] = []  # by their numbers, for the next visits and the next batches

    def __getitem__(self, key: tuple[Tensor, int]) -> Episode:
        numbers, visit = key
        batches = self.data.inner_batches(self.split)
        while self._drawn and not torch.equal(self._drawn[0][0], numbers):  # done with, or of other workers
            self._drawn.pop(0)
        if not self._drawn:
            self._drawn = self._draw(numbers)
        episode = self._drawn[0][1]
        if batches.visits == 1:
            del self._drawn[0]
            return episode
        return episode._replace(inner_order=episode.inner_order[:, visit * batches.steps : (visit + 1) * batches.steps])

    def _draw(self, numbers: Tensor) -> list[tuple[Tensor, Episode]]:
        """These tasks, and those of the batches that follow in the stream, where they cost nothing more."""
        together = self.data.drawn_together if self.split == "train" and len(numbers) else 1
        ahead = numbers + self.data.meta_batch_size * torch.arange(together)[:, None]
        drawn = Episode(*(self._moved(tensor) for tensor in self.data.draw(self.split, ahead.flatten())))
        return list(zip(ahead, drawn.chunks(len(numbers)) if together > 1 else [drawn], strict=True))

    def _moved(self, tensor: Tensor) -> Tensor:
        """Where drawn tasks go; the host does not wait for a copy to a GPU."""
        if tensor.device.type == "cpu" and self._device.type == "cuda":
            own = tensor.contiguous()  # since none that is expanded can be pinned
            return own.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)
