"""Rows beside the main one: other checkpoints, other tasks, untrained weights; and runs that went on."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_meta.cli import main
from lightning_meta.report.rows import Row, build_rows
from lightning_meta.report.runs import find_runs
from lightning_meta.report.table import comma_separated, markdown
from tests.callbacks.test_board import TINY

Make = Callable[..., Any]
BEST = "best by transductive accuracy"


def rows_of(root: Path) -> list[Row]:
    runs, notes = find_runs([root])
    assert notes == []
    return build_rows(runs, {})[0]


@pytest.mark.parametrize(
    ("changes", "checkpoint", "task", "inner_step"),
    [
        ({"checkpoint": "last.ckpt"}, "last", "5-way 1-shot", 1),
        ({"checkpoint": "last-v1.ckpt"}, "last", "5-way 1-shot", 1),
        ({"checkpoint": "end-step=1500.ckpt"}, "end", "5-way 1-shot", 1),
        ({"checkpoint": "mine.ckpt"}, "mine", "5-way 1-shot", 1),
        ({"shots": 5}, BEST, "5-way 5-shot", 1),
        ({"ways": 20}, BEST, "20-way 1-shot", 1),
        ({"ways": 20, "shots": 5, "checkpoint": "last.ckpt"}, "last", "20-way 5-shot", 1),
        ({"queries": 15}, BEST, "5-way 1-shot", 1),
        ({"members": 5}, "best 5 by transductive accuracy", "5-way 1-shot", 1),
        ({"mean": [0.2, 0.6, 0.7, 0.8]}, BEST, "5-way 1-shot", 3),
    ],
)
def test_a_further_test_has_a_row_of_its_own(
    changes: dict[str, Any], checkpoint: str, task: str, inner_step: int, tmp_path: Path, make_run: Make,
    make_entry: Make,
) -> None:  # fmt: skip
    mean = changes.pop("mean", [0.2, 0.8])
    for seed in (0, 1):
        own = make_entry([0.2, 0.9], seed=seed, measured="1")
        make_run("a", [make_entry(mean, seed=seed, measured="2", **changes), own], seed=seed)
    main_row, further = rows_of(tmp_path)
    assert (main_row.main, further.main) == (True, False)
    shown = [(row.checkpoint, row.task, row.inner_step, row.figure("transductive").mean) for row in (main_row, further)]  # type: ignore[union-attr]
    assert shown == [(BEST, "5-way 1-shot", 1, 90), (checkpoint, task, inner_step, 80)]
    assert [len(row.runs) for row in (main_row, further)] == [2, 2]
    first, second = csv.DictReader(comma_separated([main_row, further]).splitlines())
    assert (first["transductive"], second["transductive"]) == ("90.0", "80.0")
    assert f"{second['ways']}-way {second['shots']}-shot" == task
    assert second["queries_per_task"] == str(changes.get("queries", 1) * changes.get("ways", 5))


def test_an_untrained_network_says_so(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.2, 0.3], checkpoint=None, meta_steps=0), make_entry([0.2, 0.9])])
    trained, untrained = sorted(rows_of(tmp_path), key=lambda row: row.untrained)
    assert (trained.checkpoint, untrained.checkpoint) == (BEST, "none: untrained")
    assert (trained.main, untrained.main) == (True, False)
    lines = markdown([trained, untrained], ["method", "checkpoint", "transductive"]).split("\n")
    assert lines[2] == f"| MAML | {BEST} | 90.00 ± 1.00 |"
    assert lines[3] == "| MAML, untrained | none: untrained | 30.00 ± 1.00 |"


def go_on(folder: Path, name: str) -> None:
    """Let a run begin with the last checkpoint of another of its experiment."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["ckpt_path"] = str(folder.with_name(name) / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_the_curve_of_a_run_that_went_on_is_joined_with_its_predecessor_s(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    """The later run measured 500 again; what its predecessor saw up to its start is kept."""
    make_run("a", [make_entry([0.1])], validation={250: 0.1, 500: 0.2, 750: 0.9}, max_steps=750)
    for name, validation in (("version_0", {500: 0.3, 1000: 0.4}), ("version_1", {1250: 0.5})):
        go_on(make_run("a", [make_entry([0.9])], validation=validation, max_steps=max(validation)), name)
    runs, _ = find_runs([tmp_path])
    assert [run.validation["val_accuracy"] for run in runs] == [
        {250: 0.1, 500: 0.2, 750: 0.9},
        {250: 0.1, 500: 0.3, 1000: 0.4},
        {250: 0.1, 500: 0.3, 1000: 0.4, 1250: 0.5},
    ]


@pytest.mark.parametrize("name", ["version_1", "version_7", ".."])
def test_a_run_that_names_itself_or_nothing_as_its_predecessor(
    name: str, tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run("a", [make_entry([0.1])], validation={250: 0.1})
    go_on(make_run("a", [make_entry([0.9])], validation={500: 0.3}), name)
    assert [run.validation["val_accuracy"] for run in find_runs([tmp_path])[0]] == [{250: 0.1}, {500: 0.3}]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # that of the run, which goes on
def test_a_run_that_goes_on_in_its_folder_is_one_run(tmp_path: Path) -> None:
    fit = ["fit", *TINY, f"--trainer.default_root_dir={tmp_path}"]
    assert main([*fit, "--trainer.max_steps=4"]) == 0
    assert main([*fit, "--trainer.max_steps=6", "--ckpt_path=last", "--trainer.enable_model_summary=true"]) == 0
    (run,), notes = find_runs([tmp_path])
    assert notes == []
    assert (run.meta_steps, run.seed, run.settings["trainer.max_steps"]) == (6, 0, 6)
    assert [*run.validation["val_accuracy"]] == [2, 4, 6]
    (row,) = [row for row in build_rows([run], {})[0] if row.main]
    assert row.meta_steps == "6"
