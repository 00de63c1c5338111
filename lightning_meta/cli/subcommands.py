"""The subcommands that LightningCLI runs: fit, validate, test and predict, and what surrounds every run."""

import warnings
from functools import partial
from pathlib import Path
from typing import TypeVar

from pytorch_lightning.utilities.exceptions import SIGTERMException

from lightning_meta.cli import run_folder
from lightning_meta.cli.blame import blame
from lightning_meta.cli.bounded_values import bound_values
from lightning_meta.cli.class_names import prefer_own_classes
from lightning_meta.cli.lightning_cli import MetaCLI
from lightning_meta.cli.signals import Stop, Stopped
from lightning_meta.noise import printable_warnings, silence, silent_threads
from lightning_meta.process import keep_freed_memory

CLI = TypeVar("CLI", bound=MetaCLI)


def build(kind: type[CLI], name: str, args: list[str]) -> CLI | int:
    """Build what the settings say, and run the subcommand; returns the exit status where a signal ended it.

    Args:
        kind: whose constructor does so.
        name: the subcommand.
        args: what follows it on the command line.

    Raises:
        MetaLearningError: what a person can mend.
    """
    keep_freed_memory()
    prefer_own_classes()
    bound_values()
    with Stop([name, *args]) as stop, silent_threads(), printable_warnings(), warnings.catch_warnings():
        silence()
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists")  # a run that goes on in its folder
        new: list[Path] = []
        try:
            return kind(name, args, new, stop)
        except (Stopped, SIGTERMException):
            for folder in new:
                run_folder.leave(folder)
            return stop.report()
        except Exception as error:
            mistake = stop.explain(error) or blame(error)
            if mistake is None:
                raise
            for folder in new:
                run_folder.leave(folder)
            raise mistake from error
        finally:
            run_folder.release()


def run(name: str, args: list[str]) -> int:
    """Run fit, validate, test or predict; returns the exit status."""
    ended = build(MetaCLI, name, args)
    return ended if isinstance(ended, int) else 0


fit, validate, test, predict = (partial(run, name) for name in ("fit", "validate", "test", "predict"))
