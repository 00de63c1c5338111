"""The data module that all episodic data share: an endless stream of tasks for training, fixed lists for evaluation."""

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_meta.data.drawing.sampler import TaskDataset, TaskSampler
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.episode import Episode, InnerBatches, Split
from lightning_meta.errors import MetaLearningError

MOST = 2**31 - 1  # of anything that is counted
EVALUATION_BATCH = 32  # tasks evaluated together, at least, even where a meta-step has fewer


@dataclass(kw_only=True, eq=False)
class EpisodeDataModule(LightningDataModule, ABC):
    """Batches of tasks. A subclass says how to draw tasks by their numbers (`draw`); everything else is here.

    Task i of a split is a pure function of (seed, split, i). A global batch is ``meta_batch_size`` consecutive tasks,
    of which rank r takes every world-size-th from the r-th on; `InnerBatches.visits` consecutive meta-steps get the
    same one, with further inner steps. Evaluation counts each of tasks 0..n-1 once.

    A subclass is a keyword-only dataclass and declares only the fields that it adds, gives another default, or fixes
    (``field(init=False)``).

    Args:
        ways: classes in a task.
        shots: support examples of each class.
        queries: query examples of each class.
        train_ways: classes in a training task; ``ways`` when None. Only for methods that take any number of classes.
        train_shots: support examples of each class in training; ``shots`` when None.
        train_queries: query examples of each class in training; ``queries`` when None. Some methods, such as Reptile,
            need none.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test; the papers use 600.
        seed: seed of the stream of tasks.
        num_workers: processes that draw ahead; 0 draws in the main process.

    Raises:
        MetaLearningError: a number is too small.
    """

    drawn_together = 1  # training batches in one draw; more where a draw costs the same for many tasks
    classes_shared: ClassVar[bool] = False  # whether the splits have the same classes on purpose, and other images
    queries_are_support: ClassVar[bool] = False  # whether a task is scored on the rows that it learns from, on purpose

    ways: int = 5
    shots: int = 1
    queries: int = 1
    train_ways: int | None = None
    train_shots: int | None = None
    train_queries: int | None = None
    meta_batch_size: int = 32
    validation_tasks: int = 100
    test_tasks: int = 600
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._train_batches = self._evaluation_batches = InnerBatches()
        self._restored = {"consumed_tasks": 0, "visit": 0, "consumed_batches": 0, "seed": self.seed}
        check_at_least(1, ways=self.ways, shots=self.shots, queries=self.queries, meta_batch_size=self.meta_batch_size)
        check_at_least(1, train_ways=self.ways_in("train"), train_shots=self.shots_in("train"))
        check_at_least(0, train_queries=self.queries_in("train"))
        check_at_least(0, validation_tasks=self.validation_tasks, test_tasks=self.test_tasks)
        check_at_least(0, num_workers=self.num_workers)
        check_seeds(seed=self.seed)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width that a backbone's output must have for these tasks."""

    @property
    def train_class_count(self) -> int:
        """Classes in the training split, numbered as in `Episode.classes`; 0 where tasks do not name theirs."""
        return 0

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a picture becomes an input as these data hold them; None where the inputs are not pictures."""
        return None

    def class_names(self, split: Split) -> list[str] | None:
        """Names of the classes of a split, the same for the same class in any split; None where they have none."""
        return None

    @abstractmethod
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The tasks of these numbers, shape (tasks,), which may be empty; a pure function of seed, split and number."""

    def connect(self, train: InnerBatches, evaluation: InnerBatches) -> None:
        """Take what the learner needs drawn for its inner loop; it says so at setup, before anything is drawn.

        Args:
            train: the inner steps of training.
            evaluation: the inner steps of validation, test and prediction.
        """
        self._train_batches, self._evaluation_batches = train, evaluation

    def inner_batches(self, split: Split) -> InnerBatches:
        """What the learner needs drawn for its inner loop in this split."""
        return self._train_batches if split == "train" else self._evaluation_batches

    def ways_in(self, split: Split) -> int:
        """Classes in the tasks of this split."""
        return self.train_ways if split == "train" and self.train_ways is not None else self.ways

    def ways_setting(self, split: Split) -> str:
        """Name of the setting that `ways_in` comes from (for error messages)."""
        return "data.train_ways" if split == "train" and self.train_ways is not None else "data.ways"

    def shots_in(self, split: Split) -> int:
        """Support examples of each class in the tasks of this split."""
        return self.train_shots if split == "train" and self.train_shots is not None else self.shots

    def queries_in(self, split: Split) -> int:
        """Query examples of each class in the tasks of this split."""
        return self.train_queries if split == "train" and self.train_queries is not None else self.queries

    def setup(self, stage: str) -> None:
        """Refuse to evaluate on nothing."""
        if stage == "validate" and not self.validation_tasks:
            raise MetaLearningError("data.validation_tasks is 0, so there are no validation tasks: raise it")
        if stage == "validate" and not self.has_validation():
            raise MetaLearningError(f"the data have no validation classes: {self.more_classes('validation')}")
        if stage in ("test", "predict"):
            check_at_least(1, test_tasks=self.test_tasks)

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages); a subclass names its settings."""
        return f"take data with more {split} classes"

    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""
        return self.validation_tasks > 0

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
        return self._loader("train", TaskSampler(self, batches, self.meta_batch_size))

    def val_dataloader(self) -> DataLoader[Episode] | list[DataLoader[Episode]]:
        """The fixed list of validation tasks; no loader where the split has none."""
        return self._evaluation_loader("validation", self.validation_tasks) if self.has_validation() else []

    def test_dataloader(self) -> DataLoader[Episode]:
        """The fixed list of test tasks."""
        return self._evaluation_loader("test", self.test_tasks)

    def predict_dataloader(self) -> DataLoader[Episode]:
        """The test tasks again, for their predictions."""
        return self.test_dataloader()

    def _evaluation_loader(self, split: Split, tasks: int) -> DataLoader[Episode]:
        size = max(self.meta_batch_size, EVALUATION_BATCH)
        return self._loader(split, TaskSampler(self, -(-tasks // size), size, tasks))

    def _loader(self, split: Split, sampler: TaskSampler) -> DataLoader[Episode]:
        return DataLoader(
            TaskDataset(self, split), batch_size=None, sampler=sampler, num_workers=self.num_workers,
            pin_memory=self.num_workers > 0 and self.root_device.type == "cuda", worker_init_fn=ignore_signals,
        )  # fmt: skip

    @property
    def draws_to(self) -> torch.device:
        """Where drawn tasks go: to the trainer's GPU at once, unless other processes draw, which may not touch it."""
        on_gpu = self.root_device.type == "cuda" and not self.num_workers
        return self.root_device if on_gpu else torch.device("cpu")

    @property
    def root_device(self) -> torch.device:
        """Where the trainer computes."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        """How far the stream has been consumed: by completed meta-steps, not by what was drawn ahead."""
        batches = 0
        if self.trainer is not None:
            batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        since = batches - self._restored["consumed_batches"] + self._restored.get("visit", 0)
        groups, visit = divmod(since, self._train_batches.visits)
        return {
            "consumed_tasks": self._restored["consumed_tasks"] + groups * self.meta_batch_size,
            "visit": visit,  # of the next tasks
            "consumed_batches": batches,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the first unused task.

        Raises:
            MetaLearningError: training would continue in the stream of another seed.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit" and state_dict["seed"] != self.seed:
            raise MetaLearningError(
                f"the checkpoint was trained on the tasks of seed {state_dict['seed']}, but the seed is {self.seed}: "
                f"set seed_everything (in Python: the data module's seed) to {state_dict['seed']} to go on"
            )
        self._restored = state_dict


def ignore_signals(worker: int) -> None:
    """Leave it to the process that trains what a signal to all processes does: without its workers it would fail."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has two of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def check_at_least(lowest: int, **settings: int) -> None:
    """Refuse settings of the data that are not counts, or too small or too large.

    Raises:
        MetaLearningError: one of them is not a whole number, below ``lowest`` or above `MOST`.
    """
    for name, value in settings.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise MetaLearningError(f"data.{name} is {value!r}, expected a whole number that is at least {lowest}")
        if value < lowest:
            raise MetaLearningError(f"data.{name} is {value}, expected at least {lowest}")
        if value > MOST:
            raise MetaLearningError(f"data.{name} is {value}, expected at most {MOST}")


def check_seeds(**seeds: int) -> None:
    """Refuse seeds that are not integers of 64 bits, which is what tasks are drawn from.

    Raises:
        MetaLearningError: one of them is not a whole number, or too large.
    """
    for name, value in seeds.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise MetaLearningError(f"data.{name} is {value!r}, expected a whole number from -2**63 to 2**63 - 1")
