"""Where a run stands, from what is on disk."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_meta.cli.sweep import plan, read_sweep
from lightning_meta.cli.sweep.state import ENDED, Run, parse
from tests.cli.helpers import small

METRIC = {"tasks": 5, "mean": [0.5], "half_width": [0.1], "diverged": [0]}


def make_run(tmp_path: Path, *own: str, steps: int = 4) -> Run:
    return Run(["fit", *small(tmp_path, steps=steps), *own], list(own))


def folder_of(
    run: Run, name: str, *changes: str, steps: int = 4, command: str | None = "lightning-meta fit", output: str = ""
) -> Path:
    """A run folder as a fit with these changed arguments leaves it, tested by a command."""
    folder = run.experiment / name
    (folder / "checkpoints").mkdir(parents=True)
    settings = parse([*run.arguments, *changes])
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    torch.save({"global_step": steps, "train_seconds": 6.0}, folder / "checkpoints" / "last.ckpt")
    if output:
        (folder / "output.log").write_text(output)
    if command:
        entry = {"checkpoint": "best.ckpt", "split": "test", "meta_steps": 2, "command": command, "minutes": 0.1}
        entry |= {"experiment": "experiment", "metrics": {"query_loss": METRIC}}
        (folder / "checkpoints" / "results.json").write_text(json.dumps([entry]))
    return folder


def test_a_run_is_finished_when_its_fit_was_tested(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run.state().kind == "waiting"
    folder = folder_of(run, "version_0")  # a person's own run counts
    state = run.state()
    assert (state.kind, state.folder, state.meta_steps, state.seconds) == ("finished", folder, 4, 6.0)


@pytest.mark.parametrize(
    "change", ["--seed_everything=1", "--model.inner.steps=2", "--trainer.max_steps=5", "--data.test_tasks=6"]
)
def test_a_changed_setting_is_another_run(change: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder_of(run, "seed=0", change)
    assert run.state().kind == "waiting"
    assert run.command(run.claim())[-1] == "--run=seed=0.2"  # beside that of the other run


@pytest.mark.parametrize("change", ["--model.compile=false", "--data.num_workers=1", "--trainer.log_every_n_steps=7"])
def test_what_does_not_count_in_a_report_does_not_count_here(change: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder_of(run, "seed=0", change)
    assert run.state().kind == "finished"


def test_a_test_by_hand_does_not_finish_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder = folder_of(run, "seed=0", steps=2, command="lightning-meta test --ckpt_path=last.ckpt", output="x\n")
    state = run.state()
    assert (state.kind, state.meta_steps) == ("interrupted", 2)
    assert run.command(folder)[-2:] == ["--run=seed=0", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"]


def test_a_run_that_the_clock_ended_is_not_finished(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder_of(run, "seed=0", "--trainer.max_time=00:00:01:00", steps=2, output="x\n")
    assert run.state().kind == "interrupted"
    folder_of(run, "seed=0.2", "--trainer.max_time=00:00:01:00", steps=4)
    assert run.state().kind == "finished"


def test_a_run_without_tests_is_finished_after_its_meta_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path, "--data.test_tasks=0")
    folder = folder_of(run, "seed=0", steps=3, command=None, output="x\n")
    assert run.state().kind == "interrupted"
    torch.save({"global_step": 4}, folder / "checkpoints" / "last.ckpt")
    assert run.state().kind == "finished"


def test_a_persons_own_interrupted_run_is_left_alone(tmp_path: Path) -> None:
    """Its process may be at work."""
    run = make_run(tmp_path)
    folder_of(run, "version_0", steps=2, command=None)
    assert run.state().kind == "waiting"
    folder_of(run, "mine", steps=3, command=None)
    assert run.state().folder == run.experiment / "mine"


def test_a_run_that_failed_before_it_wrote_its_settings_keeps_its_folder(tmp_path: Path) -> None:
    run, other = make_run(tmp_path), make_run(tmp_path, steps=9)
    folder = run.claim()
    command = " ".join(["# lightning-meta", *run.command(folder)])
    (folder / "output.log").write_text(f"{command}\nwrong\n{ENDED}2\n")
    assert (run.state().kind, run.state().folder) == ("failed (2)", folder)
    assert other.state().kind == "waiting"


def test_damaged_folders_are_passed_over(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folder = folder_of(run, "a", output="x\n")
    (folder / "checkpoints" / "results.json").write_text("[")
    assert run.state().kind == "interrupted"
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    assert (run.state().kind, run.state().meta_steps) == ("interrupted", 0)
    for content in ("model: [", "- 1", "", "model: 3"):
        (folder / "config.yaml").write_text(content)
        assert run.state().kind == "waiting"


def test_a_test_is_finished_until_its_checkpoint_changes(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.ckpt"
    torch.save({"global_step": 4, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}, checkpoint)
    content: dict[str, Any] = {"command": "test", "arguments": small(tmp_path), "grid": {"data.shots": [1, 2]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    run, other = plan(read_sweep(str(tmp_path / "sweep.yaml"), [f"--ckpt_path={checkpoint}"]))
    folder = folder_of(run, run.label, command=None, output=f"x\n{ENDED}0\n")
    assert (run.state().kind, other.state().kind) == ("finished", "waiting")
    assert "--ckpt_path=" + str(folder) not in " ".join(run.command(folder))
    os.utime(checkpoint, (2e9, 2e9))
    assert run.state().kind == "failed (0)"
