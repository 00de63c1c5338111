"""The process of one run: ``python -m lightning_meta.cli.sweep.child LOCK NICE SUBCOMMAND [arguments]``.

Its standard input is a pipe of the sweep, which ends when the sweep does, however that comes about: then this process
ends at once, and a sweep that is started again cannot meet it. Until then it holds the lock of the run.
"""

import os
import signal
import sys
import threading

from filelock import FileLock


def main(args: list[str]) -> int:
    """Run the command; returns its exit status.

    Args:
        args: file of the lock, how far to lower the priority, and the command.
    """
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    if nice := int(args[1]):
        os.nice(nice)
    with FileLock(args[0]):  # a process of a sweep that was killed is about to end
        from lightning_meta.cli import dispatch

        return dispatch.main(args[2:])


def _end_with_the_sweep() -> None:
    """Wait for the end of the pipe, then end this process and those that it started."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
