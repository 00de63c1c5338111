"""What travels from the data to the algorithms: a batch of tasks, and what an algorithm wants drawn with it."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

Split = Literal["train", "validation", "test"]
UNKNOWN_CLASS = -1  # in `Episode.classes`, where the data do not number the classes of a split


class Episode(NamedTuple):
    """A batch of tasks, every tensor with the task axis in front; inside the mapped functions, one task without it.

    Rows are sorted class by class: with N ways and K shots, row ``c * K + k`` of the support set is shot k of class c.
    Labels are integers 0..N-1 for classification and real values for regression.
    """

    support_x: Tensor  # (tasks, ways * shots, ...)
    support_y: Tensor  # (tasks, ways * shots) or (tasks, shots, outputs)
    query_x: Tensor  # (tasks, ways * queries, ...)
    query_y: Tensor  # (tasks, ways * queries) or (tasks, queries, outputs)
    inner_order: Tensor  # (tasks, inner steps, inner batch): the support rows of every inner step
    task_ids: Tensor  # (tasks,): the place of each task in its endless stream
    classes: Tensor  # (tasks, ways): which of the split's classes a label is, or `UNKNOWN_CLASS`; (tasks, 0) where none

    @property
    def tasks(self) -> int:
        """How many there are."""
        return len(self.task_ids)

    def chunks(self, size: int | None) -> Iterator["Episode"]:
        """Cut along the task axis into episodes of ``size`` tasks (all of them when ``size`` is None)."""
        if size is None or size >= self.tasks:
            return iter([self])
        pieces = [tensor.split(size) for tensor in self]
        return (Episode(*piece) for piece in zip(*pieces, strict=True))


class Predictions(NamedTuple):
    """Outputs for one task before the first inner step and after each, every tensor (steps + 1, rows, outputs)."""

    support: Tensor
    query: Tensor  # transductive: all queries in one batch, without the support set
    query_nontransductive: Tensor  # each query in one batch with the support set, and no other query


class InnerBatches(NamedTuple):
    """How an algorithm walks through a support set; the data module draws the order, so nothing is random later."""

    steps: int = 0
    size: int | None = None  # rows in one inner step; None: the whole support set, in its own order
    visits: int = 1  # meta-steps in a row on the same tasks, each of which goes on where the last left the order


class SupportsPlain(Protocol):
    """What can be written down."""

    def plain(self) -> dict[str, Any]:
        """Numbers, strings and containers of them."""


@runtime_checkable
class EpisodeSource(Protocol):
    """What an algorithm may ask of a data module and tell it, so that neither has to import the other."""

    seed: int
    ways: int  # classes in the tasks that are evaluated
    outputs: int  # width that the backbone's output must have: the ways, or the targets of a regression
    train_class_count: int  # classes in the training split; 0 where tasks do not name theirs
    preprocessing: SupportsPlain | None  # how a picture becomes an input; None where inputs are not pictures

    def connect(self, train: InnerBatches, evaluation: InnerBatches) -> None:
        """Take what the learner needs drawn for its inner loop; it says so at setup, before anything is drawn."""

    def ways_in(self, split: Split) -> int:
        """Classes in the tasks of this split."""

    def shots_in(self, split: Split) -> int:
        """Support examples of each class in the tasks of this split."""

    def queries_in(self, split: Split) -> int:
        """Query examples of each class in the tasks of this split."""

    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The tasks of these numbers."""
