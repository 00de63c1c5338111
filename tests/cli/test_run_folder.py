"""Run folders: one for each run, also where several start together, and a run that goes on does so in its own."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta import checkpoint_file
from lightning_meta.cli import main
from lightning_meta.cli.run_folder import claim
from tests.cli.helpers import refused, small

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")  # that of the run, which goes on


def arguments(root: Path, steps: int, *more: str) -> list[str]:
    """Validated after every second meta-step, without a schedule, so that the run can be longer than it was."""
    common = ["--model.compile=false", "--model.task_chunk=1", "--trainer.limit_val_batches=1"]
    return [*small(root, steps=steps), *common, *more]


def rows(path: Path) -> list[dict[str, str]]:
    """The logged values that do not depend on time; Lightning counts every start as an epoch."""
    with path.open() as file:
        found = [{k: v for k, v in row.items() if v and "per_second" not in k} for row in csv.DictReader(file)]
    rows = [{key: value for key, value in row.items() if key != "epoch"} for row in found]
    return [row for row in rows if row.keys() != {"step", "lr-Adam"}]  # of which every start logs one more


@pytest.mark.slow
def test_a_run_goes_on_in_its_own_folder_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["fit", *arguments(whole, 6)]) == 0
    assert main(["fit", *arguments(parts, 4, "--data.test_tasks=0")]) == 0
    assert main(["fit", *arguments(parts, 6, "--ckpt_path=last")]) == 0
    assert re.search(r"ckpt_path is last: .*version_0/checkpoints/last.ckpt", capsys.readouterr().out)
    assert [path.name for path in (parts / "experiment").iterdir()] == ["version_0"]
    one, other = (root / "experiment" / "version_0" for root in (whole, parts))
    assert rows(one / "metrics.csv") == rows(other / "metrics.csv")
    states: list[dict[str, Any]] = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)
    ]
    torch.testing.assert_close(*(dict(state["state_dict"]) for state in states), rtol=0, atol=0)
    names = [
        {Path(path).name: float(score) for path, score in entry["best_k_models"].items()}
        for state in states
        for key, entry in state["callbacks"].items()
        if key.startswith("ModelCheckpoint")
    ]
    assert len(names) == 2 and names[0] == names[1]
    results = [json.loads((run / "checkpoints" / "results.json").read_text()) for run in (one, other)]
    assert [entry["meta_steps"] for entry in results[0]] == [entry["meta_steps"] for entry in results[1]]
    assert results[0][0]["metrics"] == results[1][0]["metrics"]
    assert len([*other.glob("config_before_*.yaml")]) == 1  # of another length


@pytest.mark.slow
def test_the_last_checkpoint_is_of_the_last_validation_even_if_it_was_not_better(tmp_path: Path) -> None:
    more = ["--checkpoint.monitor=val/query_loss/step_0", "--checkpoint.mode=min", "--model.optimizer=torch.optim.SGD"]
    stop = [
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val_loss",
        "--trainer.callbacks.mode=min",
    ]
    stop += ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100"]
    assert main(["fit", *arguments(tmp_path, 8, *more, "--model.optimizer.lr=0.0", *stop)]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    state = torch.load(last, weights_only=True)
    assert state["global_step"] == 4  # the weights never change: the first is the best, the second stops the run
    (stopping,) = (entry for key, entry in state["callbacks"].items() if key.startswith("EarlyStopping"))
    assert stopping["wait_count"] == 1


def test_the_last_checkpoint_is_never_of_gradients_that_are_half_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even between the validation, which may save the best one, and the next batch: a kill there would lose one."""
    written, write = [], checkpoint_file.write

    def note(checkpoint: dict[str, Any], path: Path) -> None:
        written.append((path.name, checkpoint["GlyphEpisodes"]["consumed_batches"]))
        write(checkpoint, path)

    monkeypatch.setattr(checkpoint_file, "write", note)
    odd = ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3", "--data.test_tasks=0"]
    assert main(["fit", *arguments(tmp_path, 6, *odd, "--checkpoint.monitor=step", "--checkpoint.mode=max")]) == 0
    assert [batches for name, batches in written if name.startswith("best")] == [3, 6, 9, 12]
    assert {batches for name, batches in written if name == "last.ckpt"} == {4, 6, 10, 12}


def test_checkpoints_that_are_not_there_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("fit", "test", "validate"):
        for which in ("last", "best"):
            said = refused([command, *small(tmp_path), f"--ckpt_path={which}"], capsys)
            assert f"ckpt_path is {which}, but there is no last.ckpt in" in said
    assert not [*tmp_path.iterdir()]


def test_a_refused_continuation_leaves_the_run_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *arguments(tmp_path, 2)]) == 0
    run = tmp_path / "experiment" / "version_0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".yaml", ".csv", ".json", ".ckpt")}
    for change in ("--model=FOMAML", "--model.optimizer.lr=0.5", "--data.seed=3"):
        refused(["fit", *arguments(tmp_path, 4), change, "--ckpt_path=last"], capsys)
    assert {path: path.read_bytes() for path in before} == before
    assert not [*run.glob("config_before_*")]


def test_a_test_of_a_named_run_keeps_its_metrics_and_configuration(tmp_path: Path) -> None:
    assert main(["fit", *arguments(tmp_path, 2, "--run=mine")]) == 0
    path = tmp_path / "experiment" / "mine" / "metrics.csv"
    before, configuration = rows(path), path.with_name("config.yaml").read_bytes()
    for tested in (1, 2):
        assert main(["test", *arguments(tmp_path, 2, "--run=mine", "--ckpt_path=last")]) == 0
        assert rows(path)[: len(before)] == before
        assert ["test_loss" in row for row in rows(path)[len(before) :]] == [True] * tested
    assert path.with_name("config.yaml").read_bytes() == configuration


def test_a_folder_of_checkpoints_belongs_to_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shared"
    assert main(["fit", *arguments(tmp_path, 2, f"--checkpoint.dirpath={folder}")]) == 0
    before = (folder / "last.ckpt").read_bytes()
    said = refused(["fit", *arguments(tmp_path, 2, f"--checkpoint.dirpath={folder}", "--seed_everything=7")], capsys)
    assert "holds the checkpoints of another run: go on with it by --ckpt_path" in said
    assert (folder / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "max"), ("val/query_accuracy/step_1", "min")])
def test_the_worst_checkpoint_is_not_kept(
    monitor: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = [f"--checkpoint.monitor={monitor}", f"--checkpoint.mode={mode}"]
    assert f"keeps the worst checkpoint by {monitor}: set it to" in refused(
        ["fit", *arguments(tmp_path, 2, *watch)], capsys
    )


CLAIM = """
import sys, time
from pathlib import Path
from lightning_meta.cli.run_folder import claim
root = Path(sys.argv[1])
(root / f"ready_{sys.argv[2]}").touch()
while len([*root.glob("ready_*")]) < 4:
    time.sleep(0.001)
print([claim(sys.argv[1], "experiment") for _ in range(20)])
"""


@pytest.mark.slow
def test_runs_that_start_together_have_folders_of_their_own(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(4)
    ]
    claimed = [number for process in started for number in json.loads(process.communicate()[0])]
    assert sorted(claimed) == list(range(80))


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    (tmp_path / "experiment" / "version_7").mkdir(parents=True)
    (tmp_path / "experiment" / "version_x").mkdir()
    assert [claim(str(tmp_path), "experiment") for _ in range(2)] == [8, 9]


@pytest.mark.slow  # four processes, each of which imports torch
def test_four_fits_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_meta", "fit", *arguments(tmp_path, 2, "--data.test_tasks=0")]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    folders = sorted((tmp_path / "experiment").iterdir())
    assert [folder.name for folder in folders] == [f"version_{number}" for number in range(4)]
    for folder in folders:
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert state["global_step"] == 2
        assert [row["step"] for row in rows(folder / "metrics.csv") if "val_loss" in row] == ["1"]


@pytest.mark.parametrize("name", [[], ["--run=mine"]])
def test_a_refused_command_leaves_no_folder(
    name: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that refuses the mended command as another run, but what stands in the experiment stays."""
    (tmp_path / "experiment" / "version_0").mkdir(parents=True)
    (tmp_path / "experiment" / "version_0" / "config.yaml").write_text("{}")
    for wrong in ("--trainer.overfit_batches=1", "--trainer.devices=0", "--trainer.callbacks+=LearningRateFinder"):
        refused(["fit", *arguments(tmp_path, 2, wrong, *name)], capsys)
        assert [path.name for path in (tmp_path / "experiment").iterdir()] == ["version_0"]
