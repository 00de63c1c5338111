"""Several runs of one command: ``lightning-meta sweep FILE [settings]``."""

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Sequence

from lightning_meta.cli.parser import Parser
from lightning_meta.cli.sweep.plan import Sweep, read_sweep
from lightning_meta.cli.sweep.queue import Queue, dry_run
from lightning_meta.cli.sweep.state import Run
from lightning_meta.errors import MetaLearningError

DESCRIPTION = """Run one command several times, each with settings of its own.

FILE is a YAML file, or the name of a shipped sweep (`lightning-meta list configs`), with
  command    what each run does: fit, validate, test or predict
  arguments  a list of what all runs are given, as on the command line
  runs       a list of lists, what each run is given besides
  grid       settings with lists of values: every combination is a run
  seeds      how many seeds (3), or a list of them ([0, 1, 2]): the whole sweep for each
  search     instead of runs and grid, a search by Optuna: parameters (each with low, high and log, or choices),
             metric, direction, trials, pruner

Settings after FILE go to all runs, after the configurations and before what tells the runs apart. Every run has a
folder of its own, ROOT/EXPERIMENT/NAME, with its output in output.log. The same command again skips what is finished,
goes on with what was interrupted from its last checkpoint, and tries again what failed. Several sweeps of one file
share its runs. A run that fails does not keep the next from starting; the exit status is the highest of all runs.
"""


def main(args: list[str]) -> int:
    """Run a sweep; returns the highest exit status of its runs.

    Args:
        args: the file, options, and settings for all runs.

    Raises:
        MetaLearningError: the file is not a sweep, or a run of it cannot start; none has started then.
    """
    parser = Parser(
        "lightning-meta sweep",
        usage="lightning-meta sweep FILE [--dry-run] [--jobs N] [--nice N] [settings]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the sweep")
    parser.add_argument("--dry-run", action="store_true", help="print the command and the state of every run, and stop")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (default: %(default)s)")
    help_text = "how far to lower their priority, 19 for beside other work (default: %(default)s)"
    parser.add_argument("--nice", type=int, default=0, metavar="N", help=help_text)
    options, settings = parser.parse_known_args(args)
    if options.jobs < 1:
        raise MetaLearningError(f"--jobs is {options.jobs}, expected how many runs train side by side, at least 1")
    if not 0 <= options.nice <= 19 or (options.nice and not hasattr(os, "nice")):
        raise MetaLearningError(f"--nice is {options.nice}, expected 0 to 19, and 0 where the system has no priorities")
    sweep = read_sweep(options.file, settings)
    runs = plan(sweep)
    again = shlex.join(["lightning-meta", "sweep", *args])
    if sweep.search:
        from lightning_meta.cli.sweep.search import Searcher  # Optuna is an extra

        searcher = Searcher(sweep, runs[0], options.jobs, options.nice, again)
        return searcher.dry_run() if options.dry_run else searcher.work()
    if options.dry_run:
        print(dry_run(runs))
        return 0
    return Queue(runs, options.jobs, options.nice, again).work()


def plan(sweep: Sweep) -> list[Run]:
    """The runs of a sweep.

    Raises:
        MetaLearningError: an argument of a run is wrong, or two runs are the same.
    """
    runs: list[Run] = []
    for place, own in enumerate(sweep.parts, 1):
        try:
            run = Run(sweep.arguments(own), own)
        except MetaLearningError as error:
            raise MetaLearningError(
                f"run {place} of {sweep.path} ({shlex.join(own) or 'as it is'}): {error}"
            ) from error
        earlier = [one for one, other in enumerate(runs, 1) if other.digest == run.digest]
        if earlier:
            raise MetaLearningError(
                f"runs {earlier[0]} and {place} of {sweep.path} are the same: give each a setting or a seed of its own"
            )
        runs.append(run)
    _tell_apart(runs)
    return runs


def _tell_apart(runs: Sequence[Run]) -> None:
    """Give runs of one name longer ones."""
    names = Counter(run.name for run in runs)
    for run in runs:
        if names[run.name] > 1:
            run.label = f"{run.label}_{run.digest}"
