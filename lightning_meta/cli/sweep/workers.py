"""Runs in processes of their own, side by side."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from lightning_meta.cli.jobs import requeue
from lightning_meta.cli.signals import NAMES
from lightning_meta.cli.sweep.state import ENDED, OUTPUT, Run, shown

CHILD = [sys.executable, "-m", "lightning_meta.cli.sweep.child"]
GRACE = 20.0  # seconds that a run has to end by itself


@dataclass
class Worker:
    """A process that works on a run."""

    run: Run
    folder: Path
    process: subprocess.Popen[bytes]
    lock: FileLock
    started: float
    steps: int  # meta-steps that were done before


class Interrupted(BaseException):
    """A signal asks the sweep to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def go_on(self, again: str) -> str:
        """What to tell a person; the command that goes on is a line of its own."""
        parts = [f"stopped by {signal.Signals(self.number).name}", requeue(self.number), "go on with"]
        return "; ".join(filter(None, parts)) + f"\n{again}"


class Workers:
    """Processes side by side.

    Args:
        nice: how far their priority is lowered.
    """

    def __init__(self, nice: int = 0) -> None:
        self.nice = nice
        self.running: list[Worker] = []

    def start(self, run: Run) -> Worker | None:
        """Start a run, or go on with it; None where another sweep works on it, or has finished it meanwhile."""
        lock = run.lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        state = run.state_unlocked()
        if state.finished:
            lock.release()
            return None
        with suppress(OSError):  # Windows lets no other handle write to a locked file
            Path(lock.lock_file).write_text(str(os.getpid()), encoding="utf-8")
        folder = state.folder or run.claim()
        command = run.command(folder)
        child = [*CHILD, f"{lock.lock_file}.child", str(self.nice)]
        with (folder / OUTPUT).open("ab") as output:
            output.write(f"# {shown(command)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [*child, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which stops its runs
            )
        worker = Worker(run, folder, process, lock, time.monotonic(), state.meta_steps)
        self.running.append(worker)
        return worker

    def ended(self) -> list[tuple[Worker, int]]:
        """Runs that have ended since the last call, with their exit status."""
        ended = [worker for worker in self.running if worker.process.poll() is not None]
        return [(worker, self._close(worker)) for worker in ended]

    def stop(self, workers: list[Worker] | None = None) -> None:
        """End runs, all of them by default: each after the meta-step that it is at, or at once after some seconds."""
        workers = list(self.running) if workers is None else workers
        for worker in workers:
            _end(worker.process, at_once=False)
        for worker in workers:
            try:
                worker.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _end(worker.process, at_once=True)
                worker.process.wait()
            self._close(worker, stopped=True)

    def _close(self, worker: Worker, stopped: bool = False) -> int:
        """Take a process that has ended off the list; returns its exit status."""
        code = worker.process.returncode
        status = 128 - code if code < 0 else code
        if not stopped:
            with (worker.folder / OUTPUT).open("a", encoding="utf-8") as output:
                output.write(f"{ENDED}{status}\n")
        assert worker.process.stdin
        worker.process.stdin.close()
        worker.lock.release()
        self.running.remove(worker)
        return status


def _environment() -> dict[str, str]:
    """That of a run: the sweep hands its job back to SLURM, and knows by itself how each run goes on."""
    return {"OMP_NUM_THREADS": "1"} | {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}


def _end(process: "subprocess.Popen[bytes]", at_once: bool) -> None:
    """Ask a run and the processes that it started to end, or end them."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL if at_once else signal.SIGTERM)
        elif at_once:
            process.kill()
        else:
            process.terminate()


@contextmanager
def interruptible(workers: Workers) -> Iterator[None]:
    """Stop all runs when the sweep ends early; Ctrl-C, SIGTERM and the end of the terminal raise `Interrupted`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in names:  # the second one is not to interrupt the end of the runs
            signal.signal(name, signal.SIG_IGN)
        raise Interrupted(number)

    names = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    handlers = {name: signal.getsignal(name) for name in names}
    ours = [name for name in names if handlers[name] is not signal.SIG_IGN]  # nohup ignores SIGHUP
    for name in ours:
        signal.signal(name, interrupt)
    try:
        yield
    finally:
        workers.stop()
        for name, handler in handlers.items():
            signal.signal(name, handler)
