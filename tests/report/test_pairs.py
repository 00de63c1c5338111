"""Differences of rows that were tested on the same tasks."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta import results_file, task_values
from lightning_meta.report import pairs
from lightning_meta.report.command import main
from lightning_meta.report.rows import Row, build_rows
from lightning_meta.report.runs import find_runs
from lightning_meta.task_values import TaskValues
from tests.report.conftest import MakeRun

TASKS = 200
HARD = [random.Random(0).choice([0.2, 1.0]) for _ in range(TASKS)]  # the same tasks are hard for every method


def keep(run: Path, digest: str, shift: float, **changes: Any) -> None:
    """Values of the tasks of the run's only test: those of HARD, shifted by less than they spread."""
    (entry,) = results_file.read(run / "checkpoints" / "results.json")
    noise = random.Random(shift)
    rows = [[0.2, value + shift + noise.uniform(-0.01, 0.01)] for value in HARD]
    metrics = {"query_accuracy": rows, "query_nontransductive_accuracy": rows} | changes
    steps = list(range(len(metrics["query_accuracy"][0])))
    task_values.merge(run / "checkpoints", TaskValues(list(entry.identity), digest, metrics, steps))


def rows_of(folder: Path) -> list[Row]:
    return build_rows(find_runs([folder])[0], {})[0]


@pytest.fixture
def two(make_run: MakeRun, make_entry: Callable[..., dict[str, Any]]) -> list[Path]:
    """Two methods, of which the first is better by two points on each task."""
    return [make_run(name, [make_entry([0.2, mean])]) for name, mean in (("first", 0.62), ("second", 0.60))]


def test_a_small_difference_shows_although_the_tasks_spread(two: list[Path], tmp_path: Path) -> None:
    for run, shift in zip(two, (0.02, 0.0), strict=True):
        keep(run, "same", shift)
    (found,), notes = pairs.find_differences(rows_of(tmp_path / "logs"))
    assert (found.row.name, found.best.name, found.tasks, notes) == ("second", "first", TASKS, [])
    estimate = found.by_protocol["transductive"]
    assert estimate.mean == pytest.approx(-2, abs=0.2)
    assert estimate.half_width < 0.2  # the tasks alone allow 5 points
    assert "| second | first | 200 | -1.92 ± 0.11 |" in pairs.markdown([found])
    (row,) = csv.DictReader(pairs.comma_separated([found]).splitlines())
    assert (row["row"], row["less"], row["metric"], row["tasks"]) == ("second", "first", "accuracy", "200")
    assert float(row["transductive"]) == pytest.approx(estimate.mean, abs=1e-6)


def test_other_tasks_are_not_compared(two: list[Path], tmp_path: Path) -> None:
    for run, digest in zip(two, ("one", "other"), strict=True):
        keep(run, digest, 0.0)
    assert pairs.find_differences(rows_of(tmp_path / "logs")) == ([], [])
    assert pairs.markdown([]) == ""


def test_seeds_are_compared_seed_by_seed(
    make_run: MakeRun, make_entry: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    for name, mean in (("first", 0.62), ("second", 0.6)):
        for seed in (0, 1, 2):
            run = make_run(name, [make_entry([0.2, mean], seed=seed)], seed=seed)
            keep(run, f"tasks of {seed}", mean - 0.6 + 0.001 * seed)
    (found,), _ = pairs.find_differences(rows_of(tmp_path / "logs"))
    assert found.tasks == 3 * TASKS
    assert found.by_protocol["transductive"].mean == pytest.approx(-2, abs=0.2)


def test_a_task_that_diverged_is_not_left_out(two: list[Path], tmp_path: Path) -> None:
    keep(two[0], "same", 0.02)
    keep(two[1], "same", 0.0, query_accuracy=[[0.2, float("nan")]] + [[0.2, 0.5]] * (TASKS - 1))
    (found,), _ = pairs.find_differences(rows_of(tmp_path / "logs"))
    assert "| diverged | -1.92 ± 0.11 |" in pairs.markdown([found])


@pytest.mark.parametrize("wrong", [[[0.2, 0.5]] * 3, [[0.2]] * TASKS])
def test_values_that_do_not_fit_are_passed_over(wrong: list[list[float]], two: list[Path], tmp_path: Path) -> None:
    keep(two[0], "same", 0.02)
    keep(two[1], "same", 0.0, query_accuracy=wrong, query_nontransductive_accuracy=wrong)
    (found,), _ = pairs.find_differences(rows_of(tmp_path / "logs"))
    assert found.by_protocol == {}
    assert "nan" in pairs.comma_separated([found])


def test_the_report_prints_and_writes_them_and_says_which_file_is_damaged(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_meta.report.figures.draw_all", lambda rows, protocol: {})
    logs = tmp_path / "logs"
    assert main([str(logs)]) == 0
    assert "Differences on the same tasks" not in capsys.readouterr().out
    for run, shift in zip(two, (0.02, 0.0), strict=True):
        keep(run, "same", shift)
    assert main([str(logs)]) == 0
    assert "| second | first | 200 |" in capsys.readouterr().out
    assert (logs / "report" / "differences.csv").exists()
    (two[0] / "checkpoints" / task_values.NAME).write_text("[{")
    assert main([str(logs)]) == 0
    assert "warning: no differences task by task" in capsys.readouterr().err
