"""Metrics over tasks: a mean after every inner step, with the interval that its spread allows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lightning_meta.intervals import NORMAL_975


class Interval(NamedTuple):
    """Mean over tasks after each inner step, the half-width of its 95% interval, and what stands behind it."""

    mean: Tensor  # (scored steps,)
    half_width: Tensor  # (scored steps,)
    tasks: int
    diverged: Tensor  # (scored steps,): tasks whose value was not finite
    steps: list[int]  # inner steps after which it was scored, from 0 to all of them


class TaskMean(Metric):
    """Mean of a per-task value after every inner step, with its 95% interval.

    Counts, values and squares are summed in float64 and across ranks, whatever the precision of the run. A task counts
    once, whatever the number of its queries. A task that diverged (a value that is not finite) is counted and never
    dropped: the mean it belongs to is then not finite either, and ``diverged`` says how many there were. The half-width
    is 1.96 s / sqrt(tasks) with the sample deviation s, the papers' normal interval, which is too narrow near 100%;
    `lightning_meta.intervals` says where, and has one that holds there.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor
    diverged: Tensor

    def __init__(self, steps: list[int]) -> None:
        """Args: steps: inner steps after which a task gives a value."""
        super().__init__()
        self.steps, rows = steps, len(steps)
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(rows, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(rows, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("diverged", torch.zeros(rows, dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> Any:
        """Move to a device and keep the dtypes: Lightning's half precision would convert the sums."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), exclude_state)

    def update(self, values: Tensor) -> None:
        """Take in the values of some tasks, shape (tasks, scored steps)."""
        values = values.to(torch.float64)
        self.count += len(values)
        self.total += values.sum(0)
        self.squares += values.square().sum(0)
        self.diverged += (~values.isfinite()).sum(0)

    def compute(self) -> Interval:
        """The interval over every task seen by any rank."""
        mean = self.total / self.count
        variance = (self.squares - self.count * mean.square()).clamp(min=0) / (self.count - 1).clamp(min=1)
        half_width = NORMAL_975 * (variance / self.count).sqrt()
        return Interval(mean, half_width, int(self.count), self.diverged, self.steps)

    def interval(self) -> Interval:
        """The same by rows, where torchmetrics would make a scalar of a single one."""
        mean, half_width, tasks, diverged, steps = self.compute()
        return Interval(mean.view(-1), half_width.view(-1), tasks, diverged.view(-1), steps)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of rows whose largest output is the target's; outputs (..., rows, ways), targets (rows,) -> (...).

    NaN where an output is not finite: such a task diverged, and did not guess class 0.
    """
    right = (outputs.argmax(-1) == targets).double().mean(-1)
    return right.where(outputs.isfinite().flatten(-2).all(-1), torch.nan)


def confusion(outputs: Tensor, targets: Tensor) -> Tensor:
    """How often each class (row) was taken for each (column); outputs (rows, ways), targets (rows,) -> (ways, ways)."""
    return multiclass_confusion_matrix(outputs, targets, outputs.shape[-1])
