"""Five hundred wrong command lines: each ends in a run, or in status 2 and at most three lines; nothing is lost."""

import contextlib
import io
import signal
import traceback
from pathlib import Path
from types import FrameType

import pytest

from lightning_meta.cli import main
from tests.cli.fuzz import cases

CASES, PARTS, SEED = 500, 20, 0
SECONDS = 120  # of one command line


class StillRunningError(BaseException):
    """A command line that does not end; no ``except Exception`` catches it."""


def stop(*_: int | FrameType | None) -> None:
    raise StillRunningError


def fault(arguments: list[str]) -> str:
    """What is wrong with the end that a command line comes to; nothing where all is well."""
    printed = io.StringIO()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            status = main(list(arguments))
    except StillRunningError:
        return "does not end"
    except BaseException:
        return traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    error = printed.getvalue().partition("lightning-meta")[2].splitlines()
    short = status == 2 and 0 < len(error) <= 3 and max(map(len, error)) < 1000
    return "" if status == 0 or short else f"ends with {status} and\n" + "\n".join(error[:10])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(PARTS))
def test_wrong_command_lines(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "logs" / "experiment" / "version_0" / "results.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier run")
    before = signal.signal(signal.SIGALRM, stop)
    try:
        chosen = cases(CASES, SEED, tmp_path / "files")[part::PARTS]
        faults = {" ".join(arguments): said for arguments in chosen if (said := fault(arguments))}
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not faults, "\n\n".join(f"{command}\n{said}" for command, said in faults.items())
    assert kept.read_text() == "of an earlier run"
    assert not (tmp_path / "hacked").exists()
