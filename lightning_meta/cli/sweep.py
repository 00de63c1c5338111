"""Several runs of one command: ``lightning-meta sweep FILE [settings]``."""

import traceback
from collections.abc import Sequence

from lightning_meta.cli import dispatch
from lightning_meta.cli.configurations import find_configuration, read_configuration
from lightning_meta.errors import MetaLearningError

HELP = """usage: lightning-meta sweep FILE [settings]

Run one command several times, each with settings of its own.

FILE is a YAML file, or the name of a shipped sweep (`lightning-meta list configs`), with
  command    what each run does, such as fit
  arguments  a list of what all runs are given, as on the command line
  runs       a list of lists, what each run is given besides

Settings after FILE go to all runs, after the file's arguments and before those of each run. A run that fails does not
keep the next from starting; the exit status is the highest of all runs.
"""


def read_sweep(name: str, settings: Sequence[str] = ()) -> list[list[str]]:
    """The arguments of every run.

    Args:
        name: path of the YAML file, or name of a shipped sweep.
        settings: further arguments of all runs.

    Raises:
        MetaLearningError: the file is missing, not YAML, or not of the form above.
    """
    path = find_configuration(name)
    content = read_configuration(path)
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


def main(args: list[str]) -> int:
    """Run a sweep; returns the highest exit status of its runs.

    Args:
        args: the file and settings for all runs.
    """
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    return max(_status(run) for run in read_sweep(args[0], args[1:]))


def _status(args: list[str]) -> int:
    """Exit status of one run."""
    try:
        return dispatch.main(args)
    except Exception:  # whatever it was, the next run may not meet it
        traceback.print_exc()
        return 1
