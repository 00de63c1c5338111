"""Logs and configurations of a run that are damaged, and disks that fail while they are written."""

import csv
import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.callbacks import results
from lightning_meta.cli import main, run_folder, signals
from lightning_meta.cli.run_files import RunMetrics
from lightning_meta.noise import printable_warnings, silent_threads
from tests.cli.helpers import refused
from tests.cli.interrupted import at, command

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log of a run is."""
    (tmp_path / "e" / "r").mkdir(parents=True)
    return tmp_path / "e" / "r" / "metrics.csv"


def go_on(log: Path, steps: int, name: str = "val_loss") -> list[dict[str, Any]]:
    """The log after a run has gone on from a meta-step."""
    RunMetrics(str(log.parents[2]), "e", "r", steps).log_metrics({name: 0.5}, steps)
    with log.open(newline="") as file:
        return [*csv.DictReader(file)]


NO_LOG: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "zeros": lambda path: path.write_bytes(bytes(100)),
    "of another program": lambda path: path.write_text("a,b\n1,2\n"),
    "in Latin-1": lambda path: path.write_bytes(b"step,val_loss\n1,\xe9\n"),
    "a huge cell": lambda path: path.write_text(f"step\n{'9' * 200_000}\n"),
    "a number without end": lambda path: path.write_text(f"step\n{'9' * 5000}\n"),
    "too large": lambda path: (path.touch(), os.truncate(path, 2**40)),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", NO_LOG.values(), ids=NO_LOG)
def test_what_is_no_log_is_put_aside(make: Callable[[Path], object], log: Path) -> None:
    make(log)
    with pytest.warns(UserWarning, match=r"metrics.csv is damaged .*; it is now metrics.csv.damaged, and a new one"):
        assert go_on(log, 4) == [{"step": "4", "val_loss": "0.5"}]
    assert os.path.lexists(log.with_name("metrics.csv.damaged"))


@pytest.mark.parametrize("row", ["1", ",1", "1,2,3", "²,1", "-1,1", '1,"x', "", "7,1"])
def test_a_row_that_is_cut_or_of_a_later_meta_step_is_left_out(row: str, log: Path) -> None:
    log.write_text(f"step,val_loss\n0,0.25\n{row}")
    found = go_on(log, 4)
    assert found[0] == {"step": "0", "val_loss": "0.25"}
    assert found[-1] == {"step": "4", "val_loss": "0.5"}
    assert len(found) == 2 + (row == '1,"x')  # which is whole in itself


@pytest.mark.parametrize("steps", [4, 8])
def test_a_disk_that_fills_keeps_the_rows(steps: int, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run goes on, and where a validation or test adds columns: the file was emptied, and then written."""
    log.write_text("step,train/outer_loss\n0,0.25\n1,0.125\n")
    before = log.read_text()

    def fail(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(csv.DictWriter if steps == 4 else csv, "writerows" if steps == 4 else "writer", fail)
    with pytest.raises(OSError, match="No space left"):
        go_on(log, steps)
    assert log.read_text().splitlines() == before.splitlines()
    assert [path.name for path in log.parent.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("content", ["[1]", "hello", "3"])
def test_a_configuration_that_is_none_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment" / "r" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert f"{path} holds no settings" in refused(command(tmp_path, "--run=r"), capsys)
    assert path.read_text() == content


def test_a_full_disk_is_one_line_with_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(number: int) -> None:
        raise ValueError("you tried to log") from FULL  # as TensorBoard's logger says it

    for step, ending in ((1, "run it again with"), (3, "go on with")):
        with monkeypatch.context() as patch:
            at(patch, "training_step", lambda learner, step=step: learner.trainer.global_step == step, 0, fail)
            said = refused(command(tmp_path), capsys)
        assert f"a file below {tmp_path}: No space left on device. When the disk is in order, {ending} " in said
    again = shlex.split(said.partition(" with lightning-meta ")[2])
    assert again == command(tmp_path, f"--ckpt_path={tmp_path}/experiment/version_1/checkpoints/last.ckpt")
    assert main(again) == 0


def test_the_thread_of_tensorboard_leaves_it_to_who_uses_it_next(capsys: pytest.CaptureFixture[str]) -> None:
    class Writer(threading.Thread):
        __module__ = "tensorboard.summary.writer.event_file_writer"

        def run(self) -> None:
            raise FULL

    before = threading.excepthook
    with silent_threads():
        thread = Writer()
        thread.start()
        thread.join()
    assert capsys.readouterr().err == ""
    assert threading.excepthook is before


@pytest.mark.parametrize("setting", ["--experiment", "--run", "--checkpoint.filename"])
def test_a_name_moves_no_cursor(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor where Lightning logs which file it reads."""
    for more in ([], ["--ckpt_path=last"]):
        steps = f"--trainer.max_steps={4 if more else 2}"
        assert main(command(tmp_path, f"{setting}=\x1b[31mred\u202e", steps, *more)) == 0
    printed = capsys.readouterr()
    texts = [printed.out, printed.err, *(record.getMessage() for record in caplog.records)]
    assert any("\N{REPLACEMENT CHARACTER}[31mred" in text for text in texts)
    assert all(letter.isprintable() or letter == "\n" for text in texts for letter in text)


def test_a_warning_moves_no_cursor() -> None:
    with printable_warnings():
        shown = warnings.formatwarning("a\x1b[31m", UserWarning, "b\x1b.py", 1, "")
    assert "a\N{REPLACEMENT CHARACTER}[31m" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("name", ["last", "../../x", "a/b-{step}", "best-{val/query_loss/step_1:.2f}"])
def test_the_best_checkpoint_lies_beside_the_last(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere it was not found after the fit, and under the name of the last one it was lost."""
    said = refused(command(tmp_path, f"--checkpoint.filename={name}"), capsys)
    assert f"checkpoint.filename is {name}, which gives " in said
    assert not [*tmp_path.rglob("*.ckpt")]


def test_a_metric_with_a_slash_may_be_in_the_name(tmp_path: Path) -> None:
    name = ["--checkpoint.filename=best-{val/query_loss/step_1:.2f}", "--checkpoint.auto_insert_metric_name=false"]
    assert main(command(tmp_path, *name, "--trainer.max_steps=2", "--data.test_tasks=0")) == 0
    assert len([*tmp_path.rglob("checkpoints/best-*.ckpt")]) == 1


def test_a_run_may_be_validated_by_the_clock(tmp_path: Path) -> None:
    """Whose interval Lightning does not keep among the trainer's settings."""
    by_clock = ["--trainer.val_check_interval=01:00:00:00", "--trainer.max_steps=2", "--data.test_tasks=0"]
    assert main(command(tmp_path, *by_clock)) == 0


def test_what_nobody_reads_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs_up: None
) -> None:
    """A terminal that has gone costs neither the results of a test nor the status of the signal that says so."""

    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    arguments = command(tmp_path, "--trainer.max_steps=2")
    with monkeypatch.context() as patch:
        patch.setattr(results, "print", gone, raising=False)
        patch.setattr(os, "dup2", lambda *_: None)
        assert main(arguments) == 141
    assert len([*tmp_path.rglob("results.json")]) == 1
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == 1, signal.SIGHUP)
    monkeypatch.setattr(signals, "print", gone, raising=False)
    assert main(arguments) == 128 + signal.SIGHUP


LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(sys.argv[2], end=" 7", file=file, flush=True)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("host", [socket.gethostname(), "", "another"])
def test_a_folder_in_which_a_process_trains_is_left_to_it(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that start under one name, or one that goes on with a run that still trains, would both write there."""
    folder = tmp_path / "experiment" / "r"
    folder.mkdir(parents=True)
    (folder / "hparams.yaml").touch()
    command_ = [sys.executable, "-c", LOCK, str(folder / ".lock"), host]
    with subprocess.Popen(command_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        short = command(tmp_path, "--run=r", "--trainer.max_steps=1", "--data.test_tasks=0")
        if host == "another":  # of which nothing is known, as where it has died
            assert main(short) == 0
        else:
            assert "is the folder of a run that process 7 still trains" in refused(short, capsys)
            run_folder.leave(folder)
            run_folder.release()
            assert {path.name for path in folder.iterdir()} >= {".lock", "hparams.yaml"}
        process.communicate()
    assert main([*short, f"--ckpt_path={folder}/checkpoints/last.ckpt"] if host == "another" else short) == 0


def test_a_run_of_this_process_does_not_lock_itself_out(tmp_path: Path) -> None:
    for _ in range(2):
        run_folder.hold(tmp_path / "r")
    assert (tmp_path / "r" / ".lock").read_text() == f"{socket.gethostname()} {os.getpid()}"
    run_folder.leave(tmp_path / "r")
    run_folder.release()
    assert not (tmp_path / "r").exists()
