"""Which subcommand runs: ``lightning-meta SUBCOMMAND [arguments]``.

A subcommand is a function of its arguments that returns the exit status, and one line in `SUBCOMMANDS`. It is imported
when it is called, so that those without PyTorch start at once.
"""

import difflib
import os
import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import NamedTuple

from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable


class Subcommand(NamedTuple):
    """Where the function of a subcommand is, and what the subcommand does."""

    module: str
    function: str
    summary: str


SUBCOMMANDS = {
    "fit": Subcommand("lightning_meta.cli.subcommands", "fit", "meta-train a learner, then test it"),
    "validate": Subcommand("lightning_meta.cli.subcommands", "validate", "evaluate a learner on validation tasks"),
    "test": Subcommand("lightning_meta.cli.subcommands", "test", "evaluate a learner on test tasks"),
    "predict": Subcommand("lightning_meta.cli.subcommands", "predict", "write a learner's outputs on test tasks"),
    "adapt": Subcommand("lightning_meta.cli.adapt", "main", "learn from a few labelled pictures, and predict others"),
    "demo": Subcommand("lightning_meta.cli.demo", "main", "draw a few symbols in the browser, and see them told apart"),
    "check": Subcommand("lightning_meta.cli.check", "main", "look for leaks in the data of a configuration"),
    "report": Subcommand("lightning_meta.report.command", "main", "show finished runs in a table and figures"),
    "sweep": Subcommand("lightning_meta.cli.sweep", "main", "run one command with several settings"),
    "list": Subcommand(
        "lightning_meta.cli.listing", "main", "list methods, backbones, data, configurations or checkpoints"
    ),
}

HELP = """usage: lightning-meta SUBCOMMAND [arguments]

Meta-train and evaluate few-shot learners.

subcommands:
{subcommands}

options:
  -h, --help  show this message, or after a subcommand its own
  --version   show the version

examples:
  lightning-meta fit -c quickstart
  lightning-meta adapt --ckpt omniglot_maml_5w1s --support known --query unknown
  lightning-meta list configs
  lightning-meta fit -c omniglot/finn_5w1s_maml --data.root data --data.download true
"""


def _find(name: str) -> Callable[[list[str]], int]:
    """The function of a subcommand, imported here."""
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(SUBCOMMANDS)}"
        hint += ", and options after it" if name.startswith("-") else ""
        raise MetaLearningError(f"{name} is not a subcommand: {hint}")
    module, function, _ = SUBCOMMANDS[name]
    run: Callable[[list[str]], int] = getattr(import_module(module), function)
    return run


def _without_long_words(message: str) -> str:
    """A message with the middle of what nobody reads left out."""
    return re.sub(r"\S{300,}", lambda word: f"{word[0][:100]} ... {word[0][-100:]}", message)


def _wait_briefly() -> None:
    """Let PyTorch's threads sleep when they have waited for each other for some microseconds; before it is imported.

    GNU's OpenMP lets them spin for milliseconds. Where another process has one of the cores, the thread that all others
    wait for then hardly gets to run. Who has set how threads wait keeps it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def main(args: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: subcommand and arguments; those of the process when None.

    Returns:
        The exit status: 0, or 2 where a person can mend what went wrong, which is then said on standard error;
        141 where the reader of the output left; 128 and the number of the signal that stopped it.
    """
    if args is None:
        args = sys.argv[1:]
        sys.path.insert(0, os.getcwd())  # classes in the current folder are found, as by ``python -m``
        _wait_briefly()
    name = args[0] if args else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, SUBCOMMANDS))
        lines = [f"  {name:{width}}  {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
        print(HELP.format(subcommands="\n".join(lines)), end="")
        return 0
    if name == "--version":
        print(f"lightning-meta {metadata.version('lightning-meta')}")
        return 0
    try:
        status = _find(name)(args[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MetaLearningError, OSError) as error:
        lines = [printable(line) for line in _without_long_words(str(error)).split("\n")]
        print("lightning-meta: error:", "\n".join(lines), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lightning-meta: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as exit_:  # of an argument parser after its help or message
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
