"""Several runs of one command: `lightning-meta-sweep FILE [settings]`.

FILE is a YAML with

- ``command``: what each run does, such as ``fit``.
- ``arguments``: a list of what all runs are given, as on the command line.
- ``runs``: a list of lists, what each run is given besides.

Settings after FILE go to all runs, after the file's arguments and before those of each run. A run that fails does not
keep the next from starting.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_meta.cli import command
from lightning_meta.errors import MetaLearningError


def read_sweep(path: Path, settings: Sequence[str] = ()) -> list[list[str]]:
    """The arguments of every run.

    Args:
        path: of the YAML file.
        settings: further arguments of all runs.

    Raises:
        MetaLearningError: the file is missing, no YAML, or not of the form above.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise MetaLearningError(f"the sweep {path} does not exist: give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise MetaLearningError(f"the sweep {path} cannot be read as YAML: {error}") from error
    expected = {"command": str, "arguments": list, "runs": list}
    sound = isinstance(content, dict) and content.keys() == expected.keys()
    sound = sound and all(isinstance(content[name], kind) for name, kind in expected.items())
    if not sound or not content["runs"] or not all(isinstance(run, list) for run in content["runs"]):
        raise MetaLearningError(
            f"the sweep {path} must hold `command` (such as fit), `arguments` (a list for all runs) and `runs` (a list "
            "of lists, one for each run), and nothing else"
        )
    common = [content["command"], *map(str, content["arguments"]), *settings]
    return [[*common, *map(str, run)] for run in content["runs"]]


def main(args: list[str] | None = None) -> int:
    """Run a sweep; returns the highest exit status of its runs.

    Args:
        args: the file and settings for all runs; those of the process when None.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        runs = read_sweep(Path(args[0]), args[1:])
    except MetaLearningError as error:
        print(f"lightning-meta-sweep: error: {error}", file=sys.stderr)
        return 2
    return max(_status(run) for run in runs)


def _status(args: list[str]) -> int:
    """Exit status of one run; argument parsers raise theirs, and Lightning one for an interrupt from the keyboard."""
    try:
        return command.main(args)
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except Exception:  # whatever it was, the next run may not meet it
        traceback.print_exc()
        return 1
