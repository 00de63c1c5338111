"""Intervals over tasks."""

import pytest
import torch
from torch import nn

from lightning_meta.metrics import TaskMean, accuracy


def test_interval_equals_its_formula() -> None:
    torch.manual_seed(0)
    values = torch.rand(40, 3, dtype=torch.float64)
    metric = TaskMean([0, 1, 2])
    for piece in values.split(7):
        metric.update(piece)
    result = metric.compute()
    torch.testing.assert_close(result.mean, values.mean(0))
    torch.testing.assert_close(result.half_width, 1.959964 * values.std(0) / 40**0.5)
    assert result.tasks == 40
    assert result.diverged.tolist() == [0, 0, 0]


def test_a_diverged_task_is_counted_and_shows() -> None:
    metric = TaskMean([0, 1])
    metric.update(torch.tensor([[1.0, float("nan")], [1.0, 2.0], [3.0, float("inf")]]))
    result = metric.compute()
    assert result.tasks == 3
    assert result.diverged.tolist() == [0, 2]
    assert not result.mean[1].isfinite()
    assert result.mean[0].isclose(torch.tensor(5 / 3, dtype=torch.float64))


def test_accuracy_is_the_share_of_right_rows() -> None:
    outputs = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]]])
    assert accuracy(outputs, torch.tensor([0, 1, 1])).tolist() == [2 / 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sums_before", [False, True])
def test_half_precision_leaves_the_sums_alone(dtype: torch.dtype, sums_before: bool) -> None:
    """Lightning's true half precision converts every tensor of a learner."""
    values = (torch.rand(10_000, 1, generator=torch.Generator().manual_seed(0)) < 0.95).double()
    learner = nn.ModuleDict({"mean": TaskMean([0])})
    pieces = list(values.split(32))
    if sums_before:
        learner["mean"].update(pieces.pop(0))
    learner.to(dtype)
    for piece in pieces:
        learner["mean"].update(piece)
    interval = learner["mean"].interval()
    torch.testing.assert_close(interval.mean, values.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(interval.half_width, 1.959964 * values.std(0) / 100, rtol=1e-9, atol=0)
