"""Runs as processes of their own, which a warm process forks, as imports would take longer than the runs."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from cases import Case
from pytorch_lightning.utilities import rank_zero_only

from lightning_meta.cli import lightning_cli, main

LONGEST = 300.0  # seconds of a short run


def warm() -> None:
    """Import what runs import, and keep to one thread: a process that has started others cannot be forked safely."""
    from matplotlib import figure as figure
    from torch.utils import tensorboard as tensorboard

    torch.set_num_threads(1)
    assert lightning_cli


class Run:
    """A ``lightning-meta fit`` or ``test`` in processes of its own, one a rank, which are all of one process group.

    Args:
        case: the kind of run.
        arguments: what the subcommand is given.
        output: file that takes what the processes print.
        subcommand: ``fit`` or ``test``.
    """

    def __init__(self, case: Case, arguments: list[str], output: Path, subcommand: str = "fit") -> None:
        self._began, self._output, self._group, self._open = time.monotonic(), output, 0, set[int]()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(case.ranks):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case.ranks, "GROUP_RANK": 0}
            place |= {"LOCAL_WORLD_SIZE": case.ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {name: str(value) for name, value in place.items()} if case.ranks > 1 else {}
            process = forked(lambda: main([subcommand, *arguments]), output, environment, self._group)
            self._group = self._group or process
            self._open.add(process)

    def kill(self, last: Path, saved: int, seconds: float) -> bool:
        """Kill every process of the run; returns whether it was still running.

        Args:
            last: its last checkpoint.
            saved: how often this has been written when it is killed, or more often.
            seconds: that pass after that.
        """
        seen, number, since = None, 0, self._began
        while self._alive():
            now = last.stat().st_ino if last.exists() else None
            if now != seen:
                seen, number, since = now, number + 1, time.monotonic()
            if number > saved or (number == saved and time.monotonic() - since >= seconds):
                os.killpg(self._group, signal.SIGKILL)
                while self._alive():
                    time.sleep(0.002)
                return True
            time.sleep(0.002)
        return False

    def wait(self, longest: float = LONGEST) -> float:
        """Seconds that the run took.

        Args:
            longest: seconds after which it is killed.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        while self._alive():
            if time.monotonic() - self._began > longest:
                os.killpg(self._group, signal.SIGKILL)
                raise RuntimeError(f"a run took more than {longest:.0f} seconds, see {self._output}")
            time.sleep(0.005)
        return time.monotonic() - self._began

    def _alive(self) -> bool:
        """Whether any rank runs; one that has failed fails the run."""
        for process in [*self._open]:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self._open.remove(process)
                if status not in (0, signal.SIGKILL):
                    raise RuntimeError(f"a run ended with status {status}: {self._output.read_text()[-2000:]}")
        return bool(self._open)


def forked(function: Callable[[], int], output: Path, environment: dict[str, str], group: int) -> int:
    """The number of a new process, which ends with the status that ``function`` returns.

    Args:
        function: what it does.
        output: file to which what it prints is added.
        environment: variables that it has beside those of this process.
        group: process group that it joins; 0 for one of its own.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        with suppress(OSError):  # it has ended
            os.setpgid(process, group)  # before the next one joins, whichever of the two comes to it first
        return process
    status = 70
    try:
        os.setpgid(0, group)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ |= environment
        rank_zero_only.rank = int(environment.get("RANK", 0))  # which Lightning reads when it is imported
        status = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
