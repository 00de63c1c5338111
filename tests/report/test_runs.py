"""Runs are read from their files; what is damaged is named, and costs no other run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_meta.errors import MetaLearningError
from lightning_meta.report.runs import find_runs, read_run

Make = Callable[..., Any]


def test_reads_what_a_run_says_of_itself(make_run: Make, make_entry: Make) -> None:
    folder = make_run("omniglot/a", [make_entry([0.2, 0.9])], seed=3, validation={250: 0.5, 500: 0.6})
    run, remarks = read_run(folder)
    assert remarks == []
    assert (run.experiment, run.algorithm, run.data, run.ways, run.shots, run.seed) == (
        "omniglot/a", "MAML", "Omniglot", 5, 1, 3,
    )  # fmt: skip
    assert run.validation["val_accuracy"] == {250: 0.5, 500: 0.6}
    assert run.validation["val/query_accuracy/step_10_nontransductive"] == {250: 0.125, 500: 0.15}
    (entry,) = run.entries
    assert (entry.minutes, entry.device, entry.task_queries) == (8.0, "cpu, 1 thread", 5)
    assert entry.metrics["query_accuracy"].mean == [0.2, 0.9]


def test_one_training_serves_every_experiment_that_tested_it(make_run: Make, make_entry: Make) -> None:
    own, shots = make_entry([0.9], experiment="o15"), make_entry([0.95], experiment="o15", shots=5)
    other = make_entry([0.8], experiment="o55", shots=5)
    folder = make_run("o15", [own, shots, other], validation={250: 0.5})
    runs, notes = find_runs([folder])
    assert [bool(run.validation) for run in runs] == [True, False]  # which was of the tasks of the training
    assert notes == []
    assert [(run.experiment, run.shots, len(run.entries)) for run in runs] == [("o15", 1, 2), ("o55", 5, 1)]
    assert [run.main_entry().metrics["query_accuracy"].mean for run in runs] == [[0.9], [0.8]]  # type: ignore[union-attr]


def test_a_quick_retest_does_not_stand_for_the_run(make_run: Make, make_entry: Make) -> None:
    """Neither one on fewer tasks nor one on the tasks of another seed, however late they were measured."""
    full, few = make_entry([0.9], tasks=600, measured="1"), make_entry([0.8], tasks=2, measured="2")
    few["metrics"]["query_loss"]["tasks"] = 2
    other = make_entry([0.7], seed=7, measured="3")
    for entries in ([full, few, other], [other, few, full]):
        run, _ = read_run(make_run("a", entries))
        assert run.main_entry().metrics["query_accuracy"].mean == [0.9]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.yaml", lambda text: re.sub(r"(data:\n  class_path: .*\n  init_args:)", r"\1 [1]\n  rest:", text)),
        ("config.yaml", lambda text: text + "again: &again {more: *again}\n"),
        ("checkpoints/results.json", lambda text: text.replace('"meta_steps": 1250', '"meta_steps": Infinity')),
        ("checkpoints/results.json", lambda text: "[" * 100000),
        ("checkpoints/results.json", lambda text: text.replace("[0.45, 0.45]", "[0.45]")),
    ],
)  # fmt: skip
def test_a_run_of_nonsense_costs_no_other(
    file: str, change: Callable[[str], str], make_run: Make, make_entry: Make
) -> None:
    make_run("good", [make_entry([0.9])])
    folder = make_run("bad", [make_entry([0.9, 0.9])])
    text = (folder / file).read_text()
    (folder / file).write_text(change(text))
    assert (folder / file).read_text() != text
    runs, notes = find_runs([folder.parents[1]])
    assert [run.experiment for run in runs] == ["good"]
    assert len(notes) == 1
    assert "damaged run" in notes[0]
    assert "bad" in notes[0]


def test_meta_steps_are_those_of_the_training_not_of_its_best_checkpoint(make_run: Make, make_entry: Make) -> None:
    """And a test's row in metrics.csv (here 1,550) counts no meta-step."""
    run, _ = read_run(make_run("a", [make_entry([0.9], meta_steps=1250)], max_steps=1500))
    assert run.meta_steps == 1500
    run, _ = read_run(make_run("b", [make_entry([0.9], meta_steps=2000)], max_steps=1500))
    assert run.meta_steps == 2000


def test_entries_of_before_need_none_of_the_new_keys(make_run: Make, make_entry: Make) -> None:
    entry = make_entry([0.9])
    for key in ("members", "minutes", "device", "seed", "command", "ways", "shots", "queries", "confusion"):
        del entry[key]
    run, _ = read_run(make_run("a", [entry | {"queries_per_task": 75}]))
    main = run.main_entry()
    assert main is not None
    assert (main.members, main.minutes, main.shots, main.task_queries) == (1, None, None, 75)


@pytest.mark.parametrize(
    ("entries", "best"),
    [
        ([("last.ckpt", 1, 1), ("best-step=500.ckpt", 1, 1), ("end-step=1500.ckpt", 1, 1)], 1),
        ([("last.ckpt", 1, 1), ("end-step=1500.ckpt", 1, 1), (None, 1, 1)], 1),
        ([("best-step=500.ckpt", 5, 1), ("last.ckpt", 1, 1)], 1),  # an ensemble is not a checkpoint
        ([("best-step=500.ckpt", 1, 5), ("best-step=500.ckpt", 1, 1)], 1),  # other shots than the run's
        ([("best-step=500.ckpt", 1, 1), ("best-step=250.ckpt", 1, 1)], 1),  # 250 had the better validation
        ([("mine.ckpt", 1, 1), ("last.ckpt", 1, 1)], 1),
        ([("best-step=500.ckpt", 5, 1)], None),
    ],
)
def test_the_entry_that_stands_for_a_run(
    entries: list[tuple[str | None, int, int]], best: int | None, make_run: Make, make_entry: Make
) -> None:
    made = [
        make_entry([i / 10], checkpoint=checkpoint, members=members, shots=shots)
        for i, (checkpoint, members, shots) in enumerate(entries)
    ]
    run, _ = read_run(make_run("a", made, validation={250: 0.7, 500: 0.6}))
    assert run.main_entry() == (None if best is None else run.entries[best])


def test_of_several_best_checkpoints_the_lower_loss_counts_where_loss_is_monitored(
    make_run: Make, make_entry: Make
) -> None:
    entries = [make_entry([1.0], kind="loss", checkpoint=f"best-step={step}.ckpt") for step in (250, 500)]
    run, _ = read_run(make_run("a", entries, kind="loss", validation={250: 0.7, 500: 0.6}))
    assert run.main_entry() == run.entries[1]


def test_validation_entries_are_no_results(make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9], split="validation")])
    assert find_runs([make_run("b", [make_entry([0.9])]).parents[1]])[0][0].experiment == "b"


def test_finds_runs_at_any_depth_each_once_in_order(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for experiment in ("b", "omniglot/a"):
        make_run(experiment, [make_entry([0.9])])
    runs, notes = find_runs([tmp_path / "logs" / "omniglot", tmp_path, tmp_path / "logs" / "omniglot" / ".."])
    assert [run.experiment for run in runs] == ["b", "omniglot/a"]
    assert notes == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="nowhere.*no such folder"):
        find_runs([tmp_path / "nowhere"])


def _without(key: str, entry: dict[str, Any]) -> str:
    return json.dumps([{name: value for name, value in entry.items() if name != key}])


def _with_metric(entry: dict[str, Any], **changes: Any) -> str:
    metrics = entry["metrics"] | {"query_accuracy": entry["metrics"]["query_accuracy"] | changes}
    return json.dumps([entry | {"metrics": metrics}])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("checkpoints/results.json", lambda entry: "[{", "results.json cannot be read as JSON"),
        ("checkpoints/results.json", lambda entry: "7", "results.json is not a list"),
        ("checkpoints/results.json", lambda entry: _without("metrics", entry), "results.json lacks the key 'metrics'"),
        ("checkpoints/results.json", lambda entry: _without("split", entry), "results.json lacks the key 'split'"),
        ("checkpoints/results.json", lambda entry: _with_metric(entry, mean=[]), "query_accuracy has 0 means"),
        ("checkpoints/results.json", lambda entry: _with_metric(entry, mean=["x"]), "results.json is not a list"),
        (
            "checkpoints/results.json",
            lambda entry: json.dumps([entry | {"minutes": "long"}]),
            "results.json is not a list",
        ),
        ("config.yaml", lambda entry: "a: [", "config.yaml is not YAML"),
        ("config.yaml", lambda entry: "- 1", "config.yaml holds no settings"),
        ("config.yaml", lambda entry: "model: {class_path: A}", "config.yaml lacks the key data.class_path"),
        (
            "config.yaml",
            lambda entry: yaml.safe_dump(
                {k: {"class_path": "A", "init_args": {"ways": "x"}} for k in ("model", "data")}
            ),
            "data.ways is 'x'",
        ),
    ],
)
def test_a_damaged_run_is_named_and_skipped_and_the_others_are_read(
    file: str, damage: Callable[[dict[str, Any]], str], message: str, tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    damaged = make_run("damaged", [make_entry([0.9])])
    make_run("sound", [make_entry([0.9])])
    (damaged / file).write_text(damage(make_entry([0.9])))
    runs, (note,) = find_runs([tmp_path])
    assert [run.experiment for run in runs] == ["sound"]
    assert note.startswith("warning: ")
    assert message in note
    assert str(damaged) in note
    assert "\n" not in note


@pytest.mark.parametrize("text", ["epoch\n1\n", "step,val_loss,val_accuracy\n249,1,high\n", "step\n\0\n"])
def test_damaged_metrics_cost_the_learning_curve_only(text: str, make_run: Make, make_entry: Make) -> None:
    folder = make_run("a", [make_entry([0.9])], validation={250: 0.5})
    (folder / "metrics.csv").write_text(text)
    run, (remark,) = read_run(folder)
    assert run.validation == {}
    assert run.meta_steps == 1250  # the entry's
    assert "metrics.csv" in remark


def test_a_run_without_results_is_noted(tmp_path: Path, make_run: Make) -> None:
    folder = make_run("a", None)
    runs, (note,) = find_runs([tmp_path])
    assert runs == []
    assert note.startswith(f"note: skipped {folder}: no test results")
