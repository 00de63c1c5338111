"""Processes side by side: their environment, failures, interruptions, and two sweeps of the same runs."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.cli.sweep.queue import Queue, dry_run, progress
from tests.cli.sweep.fakes import FakeRun, fake_run


def about(run: FakeRun) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.experiment / run.label / "about.json").read_text())
    return content


def later(condition: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
    """Do something in another thread as soon as a condition holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_runs_train_side_by_side_in_their_own_group_with_one_thread(fakes: list[str]) -> None:
    runs = [fake_run(fakes, f"--x={x}", "--seconds=0.6") for x in range(3)]
    assert Queue(runs, jobs=2, nice=7, again="").work() == 0
    times = [about(run) for run in runs]
    assert times[1]["began"] < times[0]["ended"]  # side by side
    assert times[2]["began"] > min(times[0]["ended"], times[1]["ended"])  # but no more than two
    assert all((run["threads"], run["nice"], run["group"]) == ("1", "7", True) for run in times)


def test_threads_that_a_person_set_stay(fakes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run = fake_run(fakes, "--x=1")
    assert Queue([run], 1, 0, "").work() == 0
    assert about(run)["threads"] == "3"


def test_a_run_that_fails_keeps_none_from_starting_and_is_tried_again(
    fakes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [fake_run(fakes, f"--x={x}", f"--status={status}") for x, status in enumerate([0, 3, 2, 0])]
    assert Queue(runs, 1, 0, "").work() == 3
    first = [about(run)["began"] for run in runs]
    assert "2 of 4 finished" in capsys.readouterr().out
    assert Queue(runs, 1, 0, "").work() == 3
    assert [about(run)["began"] == began for run, began in zip(runs, first, strict=True)] == [True, False, False, True]
    said = (runs[1].experiment / runs[1].label / "output.log").read_text().splitlines()
    assert len(said) == 4
    assert said[0].startswith("# lightning-meta fit --root=")
    assert said[1] == "# lightning-meta sweep: ended with status 3"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_all_runs_and_says_how_to_go_on(
    number: signal.Signals, fakes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [fake_run(fakes, f"--x={x}", "--seconds=60") for x in range(3)]
    begun = [run.experiment / run.label / "began" for run in runs[:2]]
    later(lambda: all(path.exists() for path in begun), lambda: os.kill(os.getpid(), number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    queue = Queue(runs, jobs=2, nice=0, again="lightning-meta sweep FILE --jobs 2")
    assert queue.work() == 128 + number
    assert queue.workers.running == []
    assert [(run.experiment / run.label / "stopped").exists() for run in runs] == [True, True, False]
    assert f"stopped by {number.name}; go on with\nlightning-meta sweep FILE --jobs 2" in capsys.readouterr().out
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert runs[0].state().kind == "interrupted"


def test_a_run_that_another_sweep_trains_is_waited_for(fakes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = fake_run(fakes, "--x=1"), fake_run(fakes, "--x=2")
    lock = other.lock()
    lock.acquire()

    def finish() -> None:
        folder = other.claim()
        (folder / "done").touch()
        lock.release()

    assert other.state().kind == "running"
    later(lambda: mine.state().finished, finish)
    assert Queue([other, mine], 1, 0, "").work() == 0
    assert not (other.experiment / other.label / "began").exists()
    printed = capsys.readouterr().out
    assert printed.count("e/x=2,seed=0 is trained by another sweep") == 1
    assert "2 of 2 finished" in printed


def test_a_lock_that_a_killed_sweep_left_is_free(fakes: list[str]) -> None:
    run = fake_run(fakes, "--x=1")
    path = Path(run.lock().lock_file)
    path.write_text("999999")
    assert run.state().kind == "waiting"
    assert Queue([run], 1, 0, "").work() == 0
    assert path.read_text() == str(os.getpid())


def test_what_is_finished_and_how_long_the_rest_takes(fakes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [fake_run(fakes, f"--x={x}") for x in range(3)]
    assert progress(runs).startswith("0 of 3 finished\n  waiting                 0 of 10 e/x=0,seed=0\n")
    states = {run.label: run.state_unlocked() for run in runs}
    kinds = dict(zip(states, [("finished", 10, 3600.0), ("interrupted", 5, 3600.0), ("waiting", 0, 0.0)], strict=True))
    for run in runs:
        kind, steps, seconds = kinds[run.label]
        state = type(states[run.label])(kind, None, steps, seconds)
        monkeypatch.setattr(run, "state_unlocked", lambda state=state: state)
    # 5 meta-steps of 720 s are left, and 10 of the mean of 360 and 720 s.
    assert progress(runs).startswith("1 of 3 finished, about 2 h 30 min left\n")
    lines = dry_run(runs).splitlines()
    assert lines[0] == "# 1 of 3: finished, 10 meta-steps"
    assert lines[1].startswith("# lightning-meta fit")
    assert lines[5].startswith("lightning-meta fit")
