"""Intervals over tasks."""

import torch

from lightning_meta.metrics import TaskMean, accuracy


def test_interval_equals_its_formula() -> None:
    torch.manual_seed(0)
    values = torch.rand(40, 3, dtype=torch.float64)
    metric = TaskMean(3)
    for piece in values.split(7):
        metric.update(piece)
    result = metric.compute()
    torch.testing.assert_close(result.mean, values.mean(0))
    torch.testing.assert_close(result.half_width, 1.959964 * values.std(0) / 40**0.5)
    assert result.tasks == 40
    assert result.diverged.tolist() == [0, 0, 0]


def test_a_diverged_task_is_counted_and_shows() -> None:
    metric = TaskMean(2)
    metric.update(torch.tensor([[1.0, float("nan")], [1.0, 2.0], [3.0, float("inf")]]))
    result = metric.compute()
    assert result.tasks == 3
    assert result.diverged.tolist() == [0, 2]
    assert not result.mean[1].isfinite()
    assert result.mean[0].isclose(torch.tensor(5 / 3, dtype=torch.float64))


def test_accuracy_is_the_share_of_right_rows() -> None:
    outputs = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]]])
    assert accuracy(outputs, torch.tensor([0, 1, 1])).tolist() == [2 / 3]
