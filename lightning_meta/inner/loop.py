"""The settings of the inner loop."""

from dataclasses import dataclass
from typing import Literal

from lightning_meta.inner.optimizers import SGD, InnerOptimizer

EVERY = 10  # steps, of which each is scored; every tenth after them


def scored_steps(steps: int) -> list[int]:
    """After how many inner steps of ``steps`` outputs are scored: 0, each of the first ten, every tenth, and the last.

    Queries that are classified one at a time cost many times an inner step, so that scoring each of fifty steps would
    take most of an evaluation's time.

    >>> scored_steps(3), scored_steps(25)
    ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 25])
    """
    return [step for step in range(steps + 1) if step <= EVERY or step % EVERY == 0 or step == steps]


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
