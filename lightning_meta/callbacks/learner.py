"""What callbacks see of a learner."""

from typing import Any, Protocol, runtime_checkable

from pytorch_lightning import LightningModule
from torch import Tensor

from lightning_meta.episode import Episode, Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.metrics import Interval


@runtime_checkable
class Learner(Protocol):
    """A module that adapts to tasks and keeps the scores of its last evaluation; every `MetaLearner` is one."""

    intervals: dict[str, Interval]  # by metric, such as query_accuracy
    confusion: Tensor | None  # of the first task's queries after the last inner step, (ways, ways)
    meta_steps: int  # of training so far
    train_seconds: float  # of training so far, with validation

    @property
    def members(self) -> int:
        """Sets of weights whose outputs are averaged; 1 unless it is an ensemble."""

    def load_members(self, states: list[dict[str, Any]]) -> None:
        """Average the outputs of these weights from now on; those of its own alone when there are none."""

    def all_predictions(self, episode: Episode) -> Predictions:
        """Outputs for every task before adaptation and after each inner step."""


def learner_of(pl_module: LightningModule) -> Learner:
    """The module, as what callbacks see of it.

    Raises:
        MetaLearningError: it is not a meta-learner.
    """
    if not isinstance(pl_module, Learner):
        raise MetaLearningError(
            f"the model is a {type(pl_module).__name__}, but the callbacks of lightning_meta need a MetaLearner: "
            "derive from it, or leave these callbacks out"
        )
    return pl_module
