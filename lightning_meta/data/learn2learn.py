"""learn2learn's tasksets and benchmarks as episodes; the only module that imports learn2learn, and only on first use.

Arnold, Mahajan, Datta, Bunner and Zarkias, "learn2learn: A Library for Meta-Learning Research", arXiv 2008.12284,
https://github.com/learnables/learn2learn
"""

import contextlib
import importlib
import io
import pickle
import random
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.data.files.safe_pickle import pickles_are_data
from lightning_meta.episode import UNKNOWN_CLASS, Episode, Split
from lightning_meta.errors import MetaLearningError

_TASKS_COMPARED = 300  # tasks of each split that are sampled, not loaded, to see which classes they use
_UNREADABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, tarfile.TarError, zipfile.BadZipFile)


class Taskset(Protocol):
    """The part of `learn2learn.data.Taskset` that is used; annotating that class would import learn2learn for help."""

    dataset: Any
    task_transforms: Any
    num_tasks: int

    def sample_task_description(self) -> Any:
        """Draw which rows make up a task."""

    def get_task(self, task_description: Any) -> Any:
        """Load the rows: inputs (rows, ...) and labels (rows,)."""


@dataclass(kw_only=True, eq=False)
class TasksetEpisodes(EpisodeDataModule):
    """Few-shot classification on learn2learn's tasks: on one of its benchmarks, or in Python on any of its tasksets.

    Each task is cut class by class, in the order of its labels: the first rows of a class are support, the next ones
    query. A taskset of finitely many tasks repeats them: task i is task i modulo ``num_tasks``.
    The images of all benchmarks are in 0..1. The seed also names the random split of the Omniglot benchmark's classes.

    Args:
        benchmark: name of a learn2learn benchmark, such as ``omniglot`` or ``mini-imagenet``; None with tasksets.
        root: folder where the benchmark finds its data, or downloads it to.
        train: taskset for training; from Python only.
        validation: taskset for validation; from Python only.
        test: taskset for tests and predictions; from Python only.

    Raises:
        MetaLearningError: both or neither of ``benchmark`` and tasksets are given.
    """

    benchmark: str | None = None
    root: str = "data"
    train: Taskset | None = None
    validation: Taskset | None = None
    test: Taskset | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"train": self.train, "validation": self.validation, "test": self.test}
        self._given = {split: taskset for split, taskset in given.items() if taskset is not None}
        self._tasksets: dict[str, Taskset] | None = None
        if (self.benchmark is None) == (not self._given):
            raise MetaLearningError(
                f"data.benchmark is {self.benchmark}, with tasksets given for {list(self._given) or 'no split'}: set "
                "data.benchmark to the name of a learn2learn benchmark, or give tasksets in Python, not both"
            )

    @property
    def outputs(self) -> int:
        """One output for each way."""
        return self.ways

    @property
    def tasksets(self) -> dict[str, Taskset]:
        """The taskset of each split, made and compared with each other on first use."""
        if self._tasksets is None:
            tasksets = self._given if self.benchmark is None else self._load_benchmark(self.benchmark)
            self._warn_of_shared_classes(tasksets)
            self._tasksets = tasksets
        return self._tasksets

    def class_names(self, split: Split) -> list[str] | None:
        """The classes that a number of tasks use, by their label and data set; None where the split has no taskset."""
        if split not in self.tasksets:
            return None
        origins = [_data(taskset) for taskset in self.tasksets.values()]
        origin = next(place for place, data in enumerate(origins) if data is _data(self.tasksets[split]))
        with _seeded(list(self.tasksets).index(split)):  # other tasks for each split
            return [f"label {label} of data set {origin}" for label in sorted(_classes(self.tasksets[split]))]

    def prepare_data(self) -> None:
        """Let one process of each machine download a benchmark before the others read it."""
        _ = self.tasksets

    def setup(self, stage: str) -> None:
        """Draw the first task of each split that the stage needs, to check that it makes an episode.

        Raises:
            MetaLearningError: the benchmark or its data is missing, a split has no taskset, or its tasks do not fit.
        """
        super().setup(stage)
        splits: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ("test",)
        }  # fmt: skip
        for split in splits[stage]:
            if split != "validation" or self.has_validation():
                self.draw(split, torch.arange(1))

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The tasks of these numbers, each a pure function of seed, split and number.

        Raises:
            MetaLearningError: the split has no taskset, or a task does not have ``ways`` classes with enough rows.
        """
        if split not in self.tasksets:
            raise MetaLearningError(
                f"there is no {split} taskset: give TasksetEpisodes({split}=...)"
                + (" or set data.validation_tasks to 0" if split == "validation" else "")
            )
        taskset = self.tasksets[split]
        drawn = numbers if len(numbers) else torch.zeros(1, dtype=torch.int64)  # task 0 shows the shapes of no task
        random = TaskRandom(self.seed, split, drawn if taskset.num_tasks == -1 else drawn % taskset.num_tasks)
        tasks = [self._rows(split, taskset, seed) for seed in random.bits().tolist()]
        x = torch.stack(tasks)  # (T, N, K+Q, ...)
        ways = self.ways_in(split)
        labels = torch.arange(ways)[:, None].expand(*x.shape[:3])
        shots = self.shots_in(split)
        order = inner_order(random, ways * shots, *self.inner_batches(split))
        episode = Episode(
            x[:, :, :shots].flatten(1, 2),
            labels[:, :, :shots].flatten(1, 2),
            x[:, :, shots:].flatten(1, 2),
            labels[:, :, shots:].flatten(1, 2),
            order,
            drawn,
            drawn.new_full((len(drawn), ways), UNKNOWN_CLASS),
        )
        return Episode(*(tensor[: len(numbers)] for tensor in episode))

    def _rows(self, split: Split, taskset: Taskset, seed: int) -> Tensor:
        """One task's rows, class by class, support before query: (ways, shots + queries, ...)."""
        shots, queries = self.shots_in(split), self.queries_in(split)
        with _seeded(seed):
            try:
                # not sample(): that caches the tasks of a finite set, so they would depend on what was drawn before
                description = taskset.sample_task_description()
            except ValueError as error:
                raise MetaLearningError(
                    f"learn2learn cannot draw a {split} task of {self.ways_in(split)} ways with {shots} shots + "
                    f"{queries} queries ({error}): lower {self.ways_setting(split)}, data.shots or data.queries"
                ) from error
            x, y = taskset.get_task(description)
        rows: Tensor = x[y.argsort(stable=True)]
        classes, counts = y.unique(return_counts=True)
        if len(classes) != self.ways_in(split):
            raise MetaLearningError(
                f"{self.ways_setting(split)} is {self.ways_in(split)}, but a task of the {split} taskset has "
                f"{len(classes)} classes: make the two equal"
            )
        if counts.min() < shots + queries:
            raise MetaLearningError(
                f"a {split} task needs {shots} shots + {queries} queries = {shots + queries} rows of a class, but the "
                f"taskset gave one with {int(counts.min())}: lower data.shots or data.queries"
                + (" (or data.train_shots, data.train_queries)" if split == "train" else "")
                + ", or make the taskset with more"
            )
        starts = counts.cumsum(0) - counts
        return rows[starts[:, None] + torch.arange(shots + queries, device=y.device)]

    def _load_benchmark(self, name: str) -> dict[str, Taskset]:
        learn2learn = _learn2learn()
        known = sorted(learn2learn.vision.benchmarks.list_tasksets())
        if name not in known:
            raise MetaLearningError(f"data.benchmark is {name!r}, expected one of {', '.join(known)}")
        seed = int(TaskRandom(self.seed, "classes", torch.zeros(1)).bits())
        try:
            # The Omniglot benchmark shuffles its classes with Python's generator.
            with _seeded(seed), pickles_are_data(f"learn2learn's benchmark {name!r}"):
                tasksets = learn2learn.vision.benchmarks.get_tasksets(
                    name,
                    train_ways=self.ways_in("train"),
                    train_samples=self.shots_in("train") + self.queries_in("train"),
                    test_ways=self.ways_in("test"),
                    test_samples=self.shots_in("test") + self.queries_in("test"),
                    num_tasks=-1,
                    root=self.root,
                    data_augmentation="normalize",  # mini-ImageNet would otherwise come in 0..255
                )
        except _UNREADABLE as error:
            raise MetaLearningError(
                f"learn2learn can neither find nor download the data of benchmark {name!r} in data.root {self.root!r} "
                f"({type(error).__name__}: {error}): set data.root to the folder that holds them, or go online"
            ) from error
        return dict(tasksets._asdict())

    def _warn_of_shared_classes(self, tasksets: dict[str, Taskset]) -> None:
        if "train" not in tasksets:
            return
        source = "the given tasksets" if self.benchmark is None else f"learn2learn's benchmark {self.benchmark!r}"
        with _seeded(0):
            for split, taskset in tasksets.items():
                if split != "train" and _data(taskset) is _data(tasksets["train"]):
                    seen, trained = _classes(taskset), _classes(tasksets["train"])
                    if seen & trained:
                        rank_zero_warn(
                            f"{source}: {len(seen & trained)} of {len(seen)} classes seen in {_TASKS_COMPARED} {split} "
                            f"tasks are also seen in {_TASKS_COMPARED} training tasks"
                        )


def _learn2learn() -> Any:
    """Import learn2learn without the noise of what it imports."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, SyntaxWarning):  # qpth has invalid escape sequences
            warnings.simplefilter("ignore", category)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module("gym")  # prints that it is unmaintained
            return importlib.import_module("learn2learn")
        except ModuleNotFoundError as error:
            raise MetaLearningError(
                f'TasksetEpisodes needs learn2learn ({error}): pip install "lightning-meta[learn2learn]"'
            ) from error


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, from which learn2learn draws, and restore them afterwards."""
    with isolate_rng(include_cuda=False):  # worker processes may not touch CUDA
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield


def _dataset(taskset: Taskset) -> Any:
    """The data set whose rows a task description names: the transforms', which need not be the taskset's."""
    transforms = taskset.task_transforms
    first = transforms if callable(transforms) else next(iter(transforms), None)
    return getattr(first, "dataset", taskset.dataset)


def _data(taskset: Taskset) -> Any:
    """The data set beneath all selections of a taskset's classes."""
    learn2learn = _learn2learn()
    dataset = _dataset(taskset)
    while isinstance(dataset, learn2learn.data.MetaDataset) and "dataset" in vars(dataset):
        dataset = dataset.dataset
    return dataset


def _classes(taskset: Taskset) -> set[Any]:
    """Classes that a number of tasks use."""
    labels = _dataset(taskset).indices_to_labels
    return {labels[row.index] for _ in range(_TASKS_COMPARED) for row in taskset.sample_task_description()}
