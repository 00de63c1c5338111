"""A job of a scheduler that is started again goes on with its own run; any other starts one."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from lightning_meta.cli import jobs, main
from lightning_meta.cli.sweep.workers import Interrupted
from tests.cli.interrupted import at, check_same, command, ended, stopped

TASK = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "train", "JOB_ID": "4242"}
SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/asked
echo "no such job" >&2
exit {status}
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one task; what its `scontrol` was asked for stands in the file ``asked``."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, value in TASK.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    let_scontrol_end(folder, 0)
    return folder


def let_scontrol_end(folder: Path, status: int) -> None:
    (folder / "scontrol").write_text(SCONTROL.format(folder=folder, status=status))
    (folder / "scontrol").chmod(0o755)


def stop(
    arguments: list[str], number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    with monkeypatch.context() as patch:
        at(patch, "training_step", lambda learner: learner.trainer.global_step == 2, number)
        return stopped(arguments, number, capsys)


def runs(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "experiment").iterdir())


@pytest.mark.parametrize("array", [False, True])
def test_a_requeued_job_goes_on_to_the_bit_and_another_starts_a_run(
    array: bool, slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, whole = tmp_path / "mine", tmp_path / "whole"
    assert main(command(whole)) == 0
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4200")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    again = stop(command(root), signal.SIGUSR1, capsys, monkeypatch)
    assert (slurm / "asked").read_text() == f"requeue {'4200_7' if array else '4242'}\n"
    shutil.copytree(root, tmp_path / "by_hand")

    monkeypatch.setenv("SLURM_ARRAY_TASK_ID" if array else "SLURM_JOB_ID", "8")
    stop(command(root), signal.SIGTERM, capsys, monkeypatch)
    assert runs(root) == ["version_0", "version_1"]
    assert (slurm / "asked").read_text().count("requeue") == 1  # a job that is cancelled does not come back

    monkeypatch.setenv("SLURM_ARRAY_TASK_ID" if array else "SLURM_JOB_ID", "7" if array else "4242")
    assert main(command(root)) == 0
    assert "the job is started again, and goes on from" in capsys.readouterr().out
    shutil.rmtree(root / "experiment" / "version_1")
    check_same(ended(whole), ended(root))
    assert main([one.replace(str(root), str(tmp_path / "by_hand")) for one in again]) == 0
    check_same(ended(whole), ended(tmp_path / "by_hand"))


def test_only_the_same_command_of_a_restarted_job_goes_on(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a node failed: no signal came before."""
    stop(command(tmp_path), signal.SIGTERM, capsys, monkeypatch)
    folder = tmp_path / "experiment" / "version_0" / "checkpoints"
    assert jobs.find_last(command(tmp_path), [folder]) is None  # once more in the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert jobs.find_last(command(tmp_path), [folder]) == str(folder / "last.ckpt")
    assert jobs.find_last(command(tmp_path, "--seed_everything=1"), [folder]) is None
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert jobs.find_last(command(tmp_path), [folder]) is None
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    for content in ("", "[]", "[" * 10_000, json.dumps({"job": 1})):  # of someone else
        (folder / "job.json").write_text(content)
        assert jobs.find_last(command(tmp_path), [folder]) is None


def test_the_file_of_another_run_in_the_shared_folder_is_left_alone(
    slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning takes ``hpc_ckpt_1.ckpt`` for that of any run that starts there."""
    saved = stop(command(tmp_path / "other"), signal.SIGTERM, capsys, monkeypatch)[-1].partition("=")[2]
    root = tmp_path / "mine"
    root.mkdir()
    shutil.copy(saved, root / "hpc_ckpt_1.ckpt")
    assert main(command(root, "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--data.test_tasks=0")) == 0
    last = torch.load(root / "experiment" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1


def test_a_refusal_of_scontrol_is_said(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_scontrol_end(slurm, 1)
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == 2, signal.SIGUSR1)
    assert main(command(tmp_path / "run")) == 138
    assert "; SLURM job 4242 is not requeued (no such job); go on with lightning-meta" in capsys.readouterr().err
    folder = tmp_path / "run" / "experiment" / "version_0" / "checkpoints"
    assert json.loads((folder / "job.json").read_text())["requeued"] is False
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "is not requeued ([Errno 2]" in Interrupted(signal.SIGUSR1).go_on("again")


def test_a_sweep_hands_its_job_back(slurm: Path) -> None:
    said = "stopped by SIGUSR1; SLURM job 4242 is requeued; go on with\nlightning-meta sweep FILE"
    assert Interrupted(signal.SIGUSR1).go_on("lightning-meta sweep FILE") == said
    assert "requeued" not in Interrupted(signal.SIGTERM).go_on("lightning-meta sweep FILE")
