"""The tasks of a split as every rank draws them, kept as digests."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.episode import UNKNOWN_CLASS, Episode, Split


class RankTrainer(Trainer):
    """A trainer that says which of several ranks it is, so that data give it that rank's tasks in one process.

    Args:
        ranks: how many there are.
        batches: meta-steps of the run.
    """

    def __init__(self, ranks: int, batches: int) -> None:
        super().__init__(
            accelerator="cpu", devices=1, max_steps=batches, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        self.ranks, self.rank = ranks, 0

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.ranks

    @property
    def global_rank(self) -> int:
        """The rank whose tasks are drawn."""
        return self.rank


class DrawnTasks:
    """What the tasks of one split are, in digests, and what is wrong with each of them.

    Args:
        ranks: that share the tasks.
        ways: classes in a task.
        twins: digests of inputs that the data set itself holds more than once.
    """

    def __init__(self, ranks: int, ways: int, twins: frozenset[bytes] = frozenset()) -> None:
        self.ways, self.twins = ways, twins
        self.numbers: list[list[int]] = [[] for _ in range(ranks)]  # of each rank's tasks
        self.contents: list[list[bytes]] = [[] for _ in range(ranks)]  # a digest of each of them
        self.inputs: set[bytes] = set()
        self.rows = 0  # of support and query
        self.shared: list[int] = []  # tasks with a query that is also a support example
        self.uneven: list[int] = []  # tasks whose labels are not equally often each
        self.repeated: list[int] = []  # tasks with one class under two labels
        self.labelled = True
        self.order: np.ndarray | None = (
            None  # (ways, ways): how often the class of each place among them had each label
        )

    @property
    def tasks(self) -> int:
        """How many were drawn."""
        return sum(map(len, self.numbers))

    def add(self, rank: int, episode: Episode) -> None:
        """Take in the tasks that a rank drew."""
        self.labelled = not episode.query_y.is_floating_point()
        for place, number in enumerate(episode.task_ids.tolist()):
            support, query = digests(episode.support_x[place]), digests(episode.query_x[place])
            targets = digests(episode.support_y[place]) + digests(episode.query_y[place])
            self.numbers[rank].append(number)
            self.contents[rank].append(hashlib.blake2b(b"".join([*support, *query, *targets])).digest())
            self.inputs.update(support, query)
            self.rows += len(support) + len(query)
            if (set(support) & set(query)) - self.twins:
                self.shared.append(number)
            if self.labelled:
                self._add_labels(number, episode.support_y[place], episode.query_y[place], episode.classes[place])

    def _add_labels(self, number: int, support: Tensor, query: Tensor, classes: Tensor) -> None:
        if not all(map(self._are_even, (support, query))):
            self.uneven.append(number)
        if len(classes) != self.ways or (classes == UNKNOWN_CLASS).any():
            return
        if len(classes.unique()) < self.ways:
            self.repeated.append(number)
            return
        if self.order is None:
            self.order = np.zeros((self.ways, self.ways))
        self.order[classes.cpu().argsort().argsort(), np.arange(self.ways)] += 1

    def _are_even(self, labels: Tensor) -> bool:
        """Whether each of 0..ways-1 is there, and equally often; a training task may have no queries."""
        each = torch.arange(self.ways, device=labels.device).repeat_interleave(len(labels) // self.ways)
        return torch.equal(labels.sort().values, each)


def draw_tasks(
    data: EpisodeDataModule, split: Split, trainer: RankTrainer, tasks: int, twins: frozenset[bytes]
) -> DrawnTasks:
    """The first tasks of a split, from the loaders of every rank.

    Args:
        data: the data module, which is set up.
        split: of the tasks.
        trainer: of the ranks.
        tasks: how many, at least, where there are as many.
        twins: digests of inputs that the data set itself holds more than once.
    """
    drawn = DrawnTasks(trainer.ranks, data.ways_in(split), twins)
    data.trainer = trainer
    for rank in range(trainer.ranks):
        trainer.rank = rank
        for episode in _batches(data, split, tasks):
            drawn.add(rank, episode)
    return drawn


def _batches(data: EpisodeDataModule, split: Split, tasks: int) -> Iterator[Episode]:
    make = {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}[split]
    loaders = make()
    for loader in [loaders] if isinstance(loaders, DataLoader) else loaders:
        seen = 0
        for episode in loader:
            yield episode
            seen += int(episode.tasks)
            if seen * data.trainer.world_size >= tasks:  # type: ignore[union-attr]
                break


def digests(rows: Tensor) -> list[bytes]:
    """16 bytes for each row, equal where all bytes of two rows are; shape (rows, ...)."""
    array = rows.detach().cpu().reshape(len(rows), -1 if rows.numel() else 0).contiguous().numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in array]
