"""The data module that all episodic data share: an endless stream of tasks for training, fixed lists for evaluation."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from lightning_meta.episode import Episode, InnerBatches, Split
from lightning_meta.errors import MetaLearningError

EVALUATION_BATCH = 32  # tasks that are evaluated together at least, even where few make a meta-step


class EpisodeDataModule(LightningDataModule, ABC):
    """Batches of tasks. A subclass says how to draw tasks by their numbers (`draw`); everything else is here.

    Task i of a split is a pure function of (seed, split, i). A global batch is ``meta_batch_size`` consecutive tasks,
    of which rank r takes every world-size-th from the r-th on; `InnerBatches.visits` meta-steps in a row get the same
    one, with further inner steps. Evaluation counts each of tasks 0..n-1 once.

    Args:
        ways: classes in a task.
        shots: support examples of a class.
        queries: query examples of a class.
        train_shots: support examples of a class in training; ``shots`` when None.
        train_queries: query examples of a class in training; ``queries`` when None. Reptile needs none.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test; the papers use 600.
        seed: names the stream of tasks.
        num_workers: processes that draw ahead; 0 draws in the main process.
    """

    def __init__(
        self,
        ways: int,
        shots: int,
        queries: int,
        train_shots: int | None,
        train_queries: int | None,
        meta_batch_size: int,
        validation_tasks: int,
        test_tasks: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.ways = ways
        self.shots = {"train": shots if train_shots is None else train_shots, "validation": shots, "test": shots}
        self.queries = {"train": queries if train_queries is None else train_queries}
        self.queries |= {"validation": queries, "test": queries}
        self.meta_batch_size = meta_batch_size
        self.tasks = {"validation": validation_tasks, "test": test_tasks}
        self.seed = seed
        self.num_workers = num_workers
        self.train_batches = InnerBatches()
        self.evaluation_batches = InnerBatches()
        self._restored = {"consumed_tasks": 0, "visit": 0, "consumed_batches": 0, "seed": seed}
        for name, value in {"ways": ways, "shots": min(self.shots.values()), "queries": queries}.items():
            _at_least(1, name, value)
        _at_least(1, "meta_batch_size", meta_batch_size)
        _at_least(0, "train_queries", self.queries["train"])
        _at_least(0, "validation_tasks", validation_tasks)
        _at_least(0, "test_tasks", test_tasks)

    def connect(self, train: InnerBatches, evaluation: InnerBatches) -> None:
        """What a learner wants drawn for its inner loop, said once before the first draw."""
        self.train_batches, self.evaluation_batches = train, evaluation

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width that a backbone's output must have for these tasks."""

    @property
    def train_classes(self) -> int:
        """Classes of the training split, numbered as in `Episode.classes`; 0 where there are none."""
        return 0

    @abstractmethod
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The tasks of these numbers, shape (tasks,), which may be empty; a pure function of seed, split and number."""

    def setup(self, stage: str) -> None:
        """Refuse to evaluate on nothing."""
        if stage == "validate" and not self.tasks["validation"]:
            raise MetaLearningError("data.validation_tasks is 0, so there are no validation tasks: raise it")
        if stage == "validate" and not self.has_validation():
            raise MetaLearningError(f"the data have no validation classes: {self.more_classes('validation')}")
        if stage in ("test", "predict"):
            _at_least(1, "test_tasks", self.tasks["test"])

    def more_classes(self, split: Split) -> str:
        """How a person comes by more classes in this split, for messages; a subclass names its settings."""
        return f"take data with more {split} classes"

    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""
        return self.tasks["validation"] > 0

    def inner_batches(self, split: Split) -> InnerBatches:
        """What the algorithm wants to have drawn for its inner loop."""
        return self.train_batches if split == "train" else self.evaluation_batches

    def train_dataloader(self) -> DataLoader[Episode]:
        """The stream from the first unused task on, as long as the run."""
        trainer = self.trainer
        assert trainer is not None
        if trainer.max_steps < 1:
            raise MetaLearningError(
                f"trainer.max_steps is {trainer.max_steps}, but the stream of training tasks has no end: "
                "set trainer.max_steps to the number of meta-steps"
            )
        if self.meta_batch_size % trainer.world_size:
            raise MetaLearningError(
                f"data.meta_batch_size is {self.meta_batch_size} and must be divisible by the {trainer.world_size} "
                "ranks, which share it"
            )
        batches = trainer.max_steps * trainer.accumulate_grad_batches
        return self._loader("train", _Batches(self, batches, self.meta_batch_size))

    def val_dataloader(self) -> DataLoader[Episode] | list[DataLoader[Episode]]:
        """The fixed list of validation tasks; no loader where the split has none."""
        return self._evaluation_loader("validation") if self.has_validation() else []

    def test_dataloader(self) -> DataLoader[Episode]:
        """The fixed list of test tasks."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Episode]:
        """The test tasks again, for their predictions."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader[Episode]:
        tasks, size = self.tasks[split], max(self.meta_batch_size, EVALUATION_BATCH)
        return self._loader(split, _Batches(self, -(-tasks // size), size, tasks))

    def _loader(self, split: Split, batches: "_Batches") -> DataLoader[Episode]:
        return DataLoader(
            _Tasks(self, split), batch_size=None, sampler=batches, num_workers=self.num_workers,
            pin_memory=self.pins_memory(),
        )  # fmt: skip

    def pins_memory(self) -> bool:
        """Whether episodes are drawn in main memory and then copied to a GPU."""
        return self.root_device.type == "cuda"

    @property
    def root_device(self) -> torch.device:
        """Where the trainer computes."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        """How far the stream has been consumed: by meta-steps that are done, not by what was drawn ahead."""
        batches = 0
        if self.trainer is not None:
            batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        since = batches - self._restored["consumed_batches"] + self._restored.get("visit", 0)
        groups, visit = divmod(since, self.train_batches.visits)
        return {
            "consumed_tasks": self._restored["consumed_tasks"] + groups * self.meta_batch_size,
            "visit": visit,  # which the next tasks are due for
            "consumed_batches": batches,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the first unused task.

        Raises:
            MetaLearningError: training would go on in the stream of another seed.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit" and state_dict["seed"] != self.seed:
            raise MetaLearningError(
                f"the checkpoint was trained on the tasks of seed {state_dict['seed']}, but the seed is {self.seed}: "
                f"set seed_everything (in Python: the data module's seed) to {state_dict['seed']} to go on"
            )
        self._restored = state_dict


class _Batches(DistributedSampler[tuple[Tensor, int]]):
    """Numbers of the tasks that this rank takes from each global batch, and how often these were taken before.

    A `DistributedSampler` by name, so that Lightning does not put its own in its place, which repeats and drops tasks.
    """

    def __init__(self, data: EpisodeDataModule, batches: int, size: int, tasks: int | None = None) -> None:
        self.data, self.batches, self.size, self.tasks = data, batches, size, tasks

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        trainer = self.data.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        start, visit, visits = 0, 0, 1
        if self.tasks is None:
            state, visits = self.data.state_dict(), self.data.train_batches.visits
            start, visit = state["consumed_tasks"], state["visit"]
        for batch in range(visit, visit + self.batches):
            first = start + batch // visits * self.size
            end = first + self.size if self.tasks is None else min(first + self.size, self.tasks)
            yield torch.arange(first + rank, max(first + rank, end), ranks), batch % visits


class _Tasks(Dataset[Episode]):
    """A split as a data set whose keys are batches of task numbers, and which visit of these tasks it is."""

    def __init__(self, data: EpisodeDataModule, split: Split) -> None:
        self.data, self.split = copy.copy(data), split
        self.data.trainer = None  # worker processes get a copy of what is here
        self._drawn: Episode | None = None  # which the next visits need again

    def __getitem__(self, key: tuple[Tensor, int]) -> Episode:
        numbers, visit = key
        batches = self.data.inner_batches(self.split)
        if batches.visits == 1:
            return self.data.draw(self.split, numbers)
        if self._drawn is None or not torch.equal(self._drawn.task_ids, numbers):
            self._drawn = self.data.draw(self.split, numbers)
        order = self._drawn.inner_order[:, visit * batches.steps : (visit + 1) * batches.steps]
        return self._drawn._replace(inner_order=order)


def _at_least(lowest: int, name: str, value: int) -> None:
    if value < lowest:
        raise MetaLearningError(f"data.{name} is {value}, expected at least {lowest}")
