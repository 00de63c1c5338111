"""A run with a name, which goes on in its folder."""

import csv
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml

from lightning_meta.cli import main, run_files
from lightning_meta.cli.run_files import RunMetrics
from tests.cli.helpers import refused, small


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_named_run_goes_on_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", *small(tmp_path), "--model.compile=false", "--model.task_chunk=1", "--run=mine"]
    assert main(arguments) == 0
    folder = tmp_path / "experiment" / "mine"
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    assert f"go on from it with --ckpt_path={last}" in refused(arguments, capsys)
    assert "belongs to another run: give this one another name" in refused([*arguments, "--data.test_tasks=4"], capsys)
    assert last.read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    first = rows(folder)
    assert main([*arguments, f"--ckpt_path={last}"]) == 0
    assert len(rows(folder)) == len(first)  # its test is logged again
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert (settings["run"], settings["ckpt_path"]) == (None, None)  # the file may be given to another run
    saved = torch.load(last, weights_only=True)
    best = [state["best_model_path"] for key, state in saved["callbacks"].items() if "val_accuracy" in key]
    assert [Path(path).parent for path in best] == [folder / "checkpoints"]
    assert sorted(path.name for path in folder.glob("checkpoints/*.ckpt")) == [Path(best[0]).name, "last.ckpt"]


def test_a_start_that_was_killed_while_it_wrote_its_configuration_can_be_repeated(tmp_path: Path) -> None:
    arguments = ["fit", *small(tmp_path), "--model.compile=false", "--model.task_chunk=1", "--run=mine"]
    configuration = tmp_path / "experiment" / "mine" / "config.yaml"
    configuration.parent.mkdir(parents=True)
    configuration.touch()
    assert main(arguments) == 0
    assert yaml.safe_load(configuration.read_text())["experiment"] == "experiment"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_name_is_one_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["fit", *small(tmp_path), f"--run={name}"], capsys)
    assert f"run is {name!r}, expected the name of one folder" in said


def test_a_named_run_saves_by_the_clock_where_nothing_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is one file all along, which the end of the fit replaces."""
    monkeypatch.setattr(run_files, "SAVED_EVERY", timedelta(0))
    monkeypatch.setattr(run_files, "CHECKED_EVERY", 1)
    saved: list[int] = []
    plain = torch.save
    monkeypatch.setattr(
        torch, "save", lambda content, *more: (saved.append(content["global_step"]), plain(content, *more))
    )
    arguments = [*small(tmp_path, steps=3), "--model.compile=false", "--checkpoint.monitor=null"]
    arguments += ["--checkpoint.filename=end-{step}", "--checkpoint.save_on_train_epoch_end=true"]
    assert main(["fit", *arguments, "--run=mine", "--trainer.limit_val_batches=0"]) == 0
    assert saved[:3] == [1, 2, 3]
    names = sorted(path.name for path in tmp_path.rglob("*.ckpt"))
    assert names == ["end-step=3.ckpt", "last.ckpt"]


def test_metrics_go_on_without_a_gap(tmp_path: Path) -> None:
    """Of the process before, what it logged after the checkpoint goes, and a row that was cut off."""
    first = RunMetrics(str(tmp_path), "e", "run")
    for step in range(0, 8, 2):
        first.log_metrics({"train": step}, step)
    first.log_metrics({"val_loss": 0.5}, 7)  # reaches the file at once, and all before it
    path = Path(first.log_dir, "metrics.csv")
    assert len(rows(path.parent)) == 5
    with path.open("a") as file:
        file.write("8")
    again = RunMetrics(str(tmp_path), "e", "run", steps=5)
    again.log_metrics({"train": 5, "new": 1}, 5)
    again.log_metrics({"val_loss": 0.25}, 7)
    again.finalize("success")
    steps = [(row["step"], row["train"], row["val_loss"], row["new"]) for row in rows(path.parent)]
    assert steps == [
        ("0", "0", "", ""),
        ("2", "2", "", ""),
        ("4", "4", "", ""),
        ("5", "5", "", "1"),
        ("7", "", "0.25", ""),
    ]
