"""The settings of the inner loop."""

from dataclasses import dataclass
from typing import Literal

from lightning_meta.inner.optimizers import SGD, InnerOptimizer


@dataclass(frozen=True)
class InnerLoop:
    """How a task is adapted to.

    Attributes:
        optimizer: the inner rule.
        steps: inner steps in training.
        batch_size: support rows of an inner step in training; None for the whole support set.
        evaluation_steps: inner steps in validation, test and prediction.
        evaluation_batch_size: support rows of an inner step there; None for the whole support set.
        reduction: whether the inner loss is the ``mean`` or the ``sum`` over its rows.
    """

    optimizer: InnerOptimizer = SGD()  # noqa: RUF009  (frozen)
    steps: int = 1
    batch_size: int | None = None
    evaluation_steps: int = 10
    evaluation_batch_size: int | None = None
    reduction: Literal["mean", "sum"] = "mean"
