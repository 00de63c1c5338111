"""The format of results: what is written reads back, older files still read, and nothing is lost to a damaged one."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.errors import MetaLearningError
from lightning_meta.results_file import Evaluation, Metric, merge, read

RUNS = Path(__file__).parents[1] / "docs"


def evaluation(mean: float = 0.9, **changes: Any) -> Evaluation:
    metric = Metric(600, [0.2, mean], [0.01, 0.02], [0, 0], [0, 1])
    values = Evaluation(
        experiment="a", checkpoint="best.ckpt", members=1, split="test", data="OmniglotEpisodes", seed=0, ways=5,
        shots=1, queries=3, tasks=600, meta_steps=100, minutes=8.5, device="cpu, 1 thread", command="fit",
        measured="2026-11-21T10:00:00+0000", confusion=[[1, 0], [0, 1]],
        metrics={"query_loss": metric, "query_accuracy": metric},
    )  # fmt: skip
    return values._replace(**changes)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    evaluations = [evaluation(), evaluation(confusion=None, ways=None, checkpoint=None)]
    for entry in evaluations:
        merge(tmp_path / "new", entry)
    assert read(tmp_path / "new" / "results.json") == evaluations
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["results.csv", "results.json"]
    with (tmp_path / "new" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2  # evaluations, metrics, steps
    assert (rows[3]["metric"], rows[3]["step"], rows[3]["mean"], rows[3]["half_width_95"]) == (
        "query_accuracy", "1", "0.9", "0.02",
    )  # fmt: skip
    assert (float(rows[3]["low_95"]), float(rows[3]["high_95"])) == pytest.approx((0.88, 0.92))


def test_steps_that_are_not_stated_are_all_steps_and_others_are_kept(tmp_path: Path) -> None:
    metric = Metric(600, [0.2, 0.9], [0.01, 0.02], [0, 0], [0, 7])
    merge(tmp_path, evaluation(metrics={"query_loss": metric}))
    path = tmp_path / "results.json"
    assert read(path)[0].metrics["query_loss"] == metric
    entries = json.loads(path.read_text())
    del entries[0]["metrics"]["query_loss"]["steps"]
    path.write_text(json.dumps(entries))
    assert read(path)[0].metrics["query_loss"].steps == [0, 1]
    for wrong in ([0], [1, 2], [0, 0], [0, -1], [0, "x"], 3):
        entries[0]["metrics"]["query_loss"]["steps"] = wrong
        path.write_text(json.dumps(entries))
        with pytest.raises(MetaLearningError, match="results.json is not a list of evaluations"):
            read(path)


@pytest.mark.parametrize("changed", [{"shots": 5}, {"seed": 1}, {"tasks": 2}, {"experiment": "b"}, {"members": 3}])
def test_a_repeated_evaluation_replaces_the_first_and_no_other(changed: dict[str, Any], tmp_path: Path) -> None:
    for entry in (evaluation(0.8), evaluation(0.7, **changed), evaluation(0.9, measured="later")):
        merge(tmp_path, entry)
    other, again = read(tmp_path / "results.json")
    assert (other.metrics["query_accuracy"].mean[1], again.metrics["query_accuracy"].mean[1]) == (0.7, 0.9)


def test_a_value_that_is_not_finite_stays(tmp_path: Path) -> None:
    merge(tmp_path, evaluation(math.nan))
    assert math.isnan(read(tmp_path / "results.json")[0].metrics["query_accuracy"].mean[1])


@pytest.mark.parametrize("content", ["[{", "{}", "[1]", "[{}]", "[" * 100000])
def test_a_damaged_file_is_put_aside(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(MetaLearningError, match="results.json"):
        read(path)
    with pytest.warns(UserWarning, match="the file is now results.json.damaged"):
        merge(tmp_path, evaluation())
    assert read(path) == [evaluation()]
    assert (tmp_path / "results.json.damaged").read_text() == content


def test_the_oldest_files_read(tmp_path: Path) -> None:
    metric = {"tasks": 600, "mean": [0.9], "half_width": [0.01]}
    old = {
        "checkpoint": None,
        "split": "test",
        "meta_steps": 5,
        "queries_per_task": 75,
        "metrics": {"query_loss": metric},
    }
    (tmp_path / "results.json").write_text(json.dumps([old]))
    (entry,) = read(tmp_path / "results.json")
    assert (entry.members, entry.minutes, entry.shots, entry.task_queries, entry.tasks) == (1, None, None, 75, 600)
    assert entry.metrics["query_loss"].diverged == [0]
    merge(tmp_path, evaluation())
    assert read(tmp_path / "results.json") == [entry, evaluation()]


def test_every_committed_run_reads() -> None:
    paths = sorted(RUNS.rglob("results.json"))
    assert len(paths) > 30
    for path in paths:
        entries = json.loads(path.read_text())
        assert [entry.measured for entry in read(path)] == [entry["measured"] for entry in entries]
