"""What callbacks see of a learner."""

from typing import Any, Protocol, cast

from pytorch_lightning import LightningModule
from torch import Tensor

from lightning_meta.episode import Episode, Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.metrics import Interval


class TaskTable(Protocol):
    """The scores of single tasks."""

    tasks: str  # a digest, the same for the same tasks alone
    metrics: dict[str, list[list[float]]]  # (tasks, scored steps)


class Scores(Protocol):
    """What the last evaluation measured."""

    intervals: dict[str, Interval]  # by metric, such as query_accuracy
    steps: list[int]  # inner steps after which it was scored
    confusion: Tensor | None  # of the first task's queries after the last inner step, (ways, ways)

    @property
    def task_table(self) -> TaskTable | None:
        """Of the single tasks, where `keep_tasks` asked for it."""

    def keep_tasks(self, keep: bool) -> None:
        """Whether the next evaluation leaves a `task_table`."""


class Carry(Protocol):
    """What outlives a meta-step without being a parameter."""

    def tree(self) -> Any:
        """Its tensors, as a pytree."""


class Learner(Protocol):
    """A module that adapts to tasks and keeps the scores of its last evaluation; every `MetaLearner` is one."""

    scores: Scores
    carry: Carry
    meta_steps: int  # of training so far
    train_seconds: float  # of training so far, with validation
    ensemble: list[tuple[dict[str, Tensor], Any]]  # meta-parameters and carry of each member; empty: its own alone

    def meta_parameters(self) -> dict[str, Tensor]:
        """The values of everything that is meta-learned, by name."""

    def all_predictions(self, episode: Episode) -> Predictions:
        """Outputs for every task after every scored inner step."""


def learner_of(pl_module: LightningModule) -> Learner:
    """The module, as what callbacks see of it.

    Raises:
        MetaLearningError: it is not a meta-learner.
    """
    # Not isinstance: from Python 3.12 on it does not see the submodules of a torch module.
    if not all(hasattr(pl_module, name) for name in Learner.__annotations__):
        raise MetaLearningError(
            f"the model is a {type(pl_module).__name__}, but the callbacks of lightning_meta need a MetaLearner: "
            "derive from it, or leave these callbacks out"
        )
    return cast(Learner, pl_module)
