"""A run that a signal stops ends its meta-step and saves its last checkpoint; the named command goes on to the bit."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta import checkpoint_file
from lightning_meta.cli import main, run_files, signals
from tests.cli.interrupted import STEPS, at, check_same, command, ended, stopped

SCHEDULE = ["--model.lr_scheduler=pytorch_lightning.cli.ReduceLROnPlateau", "--model.lr_scheduler.monitor=val_loss"]
SCHEDULE += ["--model.lr_scheduler.patience=0", "--model.lr_scheduler.threshold=0.9"]
ACCUMULATED = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=4")
EPOCHS = ("--trainer.limit_train_batches=4", "--trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What a run ends with that nothing stops."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    def run(*more: str) -> dict[str, Any]:
        if more not in known:
            root = tmp_path_factory.mktemp("whole")
            assert main(command(root, *more)) == 0
            known[more] = ended(root)
        return known[more]

    return run


@pytest.mark.parametrize(
    ("hook", "batch", "number", "more"),
    [
        ("training_step", 3, signal.SIGTERM, ()),  # in the middle of an epoch
        ("training_step", 4, signal.SIGINT, ()),  # a validation is due
        ("validation_step", 2, signal.SIGUSR1, tuple(SCHEDULE)),
        ("training_step", 5, signal.SIGTERM, ACCUMULATED),  # the first of the two batches of a meta-step
        ("training_step", 3, signal.SIGTERM, (*ACCUMULATED, "--trainer.val_check_interval=3")),  # at half a meta-step
        ("training_step", 4, signal.SIGTERM, EPOCHS),  # the last batch of an epoch
    ],
)
def test_the_named_command_goes_on_to_the_bit(
    hook: str,
    batch: int,
    number: int,
    more: tuple[str, ...],
    whole: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = whole(*more)
    at(monkeypatch, hook, lambda learner: learner.trainer.fit_loop.total_batch_idx + 1 == batch, number)
    again = stopped(command(tmp_path, *more), number, capsys)
    assert ended(tmp_path)["global_step"] < expected["global_step"]  # and not at its end
    assert main(again) == 0
    check_same(dict(expected), ended(tmp_path))


@pytest.mark.parametrize(
    ("hook", "batch", "more"),
    [
        (
            "training_step",
            5,
            (*ACCUMULATED, "--trainer.val_check_interval=3"),
        ),  # after a validation at half a meta-step
        ("validation_step", 4, ()),  # its meta-step would be saved by the clock
    ],
)
def test_what_is_saved_without_a_signal_goes_on_to_the_bit_too(
    hook: str,
    batch: int,
    more: tuple[str, ...],
    whole: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(number: int) -> None:
        raise ZeroDivisionError

    expected = whole(*more)
    monkeypatch.setattr(run_files, "SAVED_EVERY", timedelta(hours=1 if more else 0))
    monkeypatch.setattr(run_files, "CHECKED_EVERY", 1)
    at(monkeypatch, hook, lambda learner: learner.trainer.fit_loop.total_batch_idx + 1 == batch, 0, crash)
    with pytest.raises(ZeroDivisionError):
        main(command(tmp_path, *more))
    assert main(command(tmp_path, *more, "--ckpt_path=last")) == 0
    check_same(dict(expected), ended(tmp_path))


@pytest.mark.parametrize(
    ("why", "more"),
    [
        ("validated", (*ACCUMULATED, "--trainer.val_check_interval=3")),  # at half a meta-step
        ("clock", ("--trainer.val_check_interval=4",)),
        ("clock", ("--trainer.val_check_interval=4", "--trainer.limit_train_batches=2")),  # at the end of an epoch
        ("signal", ("--trainer.val_check_interval=4",)),
    ],
)
def test_the_row_of_a_meta_step_is_logged_before_its_checkpoint(
    why: str,
    more: tuple[str, ...],
    whole: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a kill just after the checkpoint loses no row, and one that goes on has each of them once."""
    plain = checkpoint_file.write

    def write_and_end(checkpoint: dict[str, Any], path: Path) -> None:
        plain(checkpoint, path)
        if path.name == "last.ckpt" and checkpoint["global_step"] == 2:
            raise ZeroDivisionError

    expected = whole(*more)
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "SAVED_EVERY", timedelta(hours=why != "clock"))
        patch.setattr(run_files, "CHECKED_EVERY", 1)
        patch.setattr(checkpoint_file, "write", write_and_end)
        if why == "signal":
            at(patch, "training_step", lambda learner: learner.trainer.global_step == 1, signal.SIGTERM)
        with pytest.raises(ZeroDivisionError):
            main(command(tmp_path, *more))
    assert ended(tmp_path)["global_step"] == 2
    assert main(command(tmp_path, *more, "--ckpt_path=last")) == 0
    runs = [dict(run) for run in (expected, ended(tmp_path))]
    for run in runs:  # every start of an epoch logs the rate once more
        run["rows"] = [row for row in run["rows"] if row.keys() != {"step", "lr-Adam"}]
    check_same(*runs)


def test_before_the_first_meta_step_there_is_nothing_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for hook in ("setup", "training_step"):
        with monkeypatch.context() as patch:
            at(patch, hook, lambda learner: True, signal.SIGTERM)
            assert stopped(command(tmp_path), signal.SIGTERM, capsys) == command(tmp_path)
        assert not [*tmp_path.rglob("*.ckpt")]


def test_during_the_closing_test_all_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, "test_step", lambda learner: True, signal.SIGINT)
    again = stopped(command(tmp_path), signal.SIGINT, capsys)
    assert torch.load(again[-1].partition("=")[2], weights_only=True)["global_step"] == STEPS
    assert not [*tmp_path.rglob("results.json")]
    assert main(again) == 0
    assert len([*tmp_path.rglob("results.json")]) == 1


def test_at_the_last_meta_step_the_fit_ends_and_its_test_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == STEPS - 1, signal.SIGTERM)
    again = stopped(command(tmp_path), signal.SIGTERM, capsys)
    assert torch.load(again[-1].partition("=")[2], weights_only=True)["global_step"] == STEPS
    assert not [*tmp_path.rglob("results.json")]


def test_a_checkpoint_that_is_being_written_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is not the one to go on from, as the meta-step goes on to its end."""
    plain = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (plain(handle), signal.raise_signal(signal.SIGTERM)))
    again = stopped(command(tmp_path), signal.SIGTERM, capsys)
    assert torch.load(again[-1].partition("=")[2], weights_only=True)["global_step"] == 2
    assert not [*tmp_path.rglob("*.partial")]


def test_a_second_signal_ends_at_once_unless_it_is_the_same_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(status: int) -> None:
        raise RuntimeError(f"ended with {status}")

    monkeypatch.setattr(os, "_exit", end)
    for hook in ("training_step", "validation_step"):  # the scheduler's, and a launcher's
        at(monkeypatch, hook, lambda learner: learner.trainer.global_step > 0, signal.SIGTERM)
    stopped(command(tmp_path), signal.SIGTERM, capsys)
    monkeypatch.setattr(signals, "SAME_REQUEST", -1.0)
    for number, hook in ((signal.SIGTERM, "training_step"), (signal.SIGINT, "validation_step")):
        at(monkeypatch, hook, lambda learner: learner.trainer.global_step > 0, number)
    with pytest.raises(RuntimeError, match=f"ended with {128 + signal.SIGINT}"):
        main(command(tmp_path))


def test_what_is_ignored_or_has_a_handler_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup` ignores SIGHUP; a program of a person's own may do something else at SIGUSR1."""
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == 1, signal.SIGHUP)
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == 2, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    try:
        assert main(command(tmp_path)) == 0
        assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    assert seen == [1]


def test_an_evaluation_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [one for one in command(tmp_path) if "checkpoint" not in one]
    arguments[0] = "validate"
    at(monkeypatch, "validation_step", lambda learner: True, signal.SIGTERM)
    assert stopped(arguments, signal.SIGTERM, capsys) == arguments
    assert not [*tmp_path.rglob("results.json")]


def test_a_run_without_checkpoints_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, "training_step", lambda learner: learner.trainer.global_step == 1, signal.SIGTERM)
    assert main(command(tmp_path, "--trainer.enable_checkpointing=false")) == 143
    assert "not saved, since the trainer is to save no checkpoints; run it again with" in capsys.readouterr().err


def test_the_command_goes_on_from_one_checkpoint() -> None:
    arguments = ["fit", "--ckpt_path", "a", "--run=x", "--ckpt_path=b", "-c", "quickstart"]
    assert signals.with_checkpoint(arguments, "c") == ["fit", "--run=x", "-c", "quickstart", "--ckpt_path=c"]
    assert signals.Stop(arguments[:3]).command("a b") == "lightning-meta fit '--ckpt_path=a b'"


@pytest.mark.slow  # a process imports PyTorch and Lightning
def test_a_signal_to_all_processes_leaves_data_workers_to_the_run(tmp_path: Path) -> None:
    """As a scheduler sends it, and the terminal."""
    arguments = command(
        tmp_path, "--data.num_workers=1", "--trainer.max_steps=100000", "--trainer.val_check_interval=20"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_meta", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 100
        while not [*tmp_path.rglob("last.ckpt")]:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert said.count("lightning-meta: stopped by SIGTERM after meta-step ") == 1
