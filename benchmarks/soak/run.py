"""The soak test: runs that are killed at random moments and go on, and memory over long runs.

``python benchmarks/soak/run.py`` kills a hundred runs of ten kinds and lets each go on, compares it with one that was
never stopped, does the same with twenty that are killed once more before they have saved anything new, trains for
20,000 meta-steps, opens and closes 1,000 data modules, and writes ``benchmarks/results/soak.csv``.
The status is 1 where anything was lost or differs.
"""

import argparse
import csv
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kills
import memory
import processes
from cases import CASES

RESULTS = Path(__file__).parents[1] / "results" / "soak.csv"


class Row(NamedTuple):
    """A line of the table."""

    check: str
    kind: str
    tried: int
    lost: int  # runs that could not go on, or measurements that grew
    different: int  # runs that ended otherwise than the one that was never stopped
    detail: str


def killed(kind: str, count: int, folder: Path, seed: int, again: bool = False) -> Row:
    """Kill runs of a kind, once or twice in a row, and let them go on."""
    outcomes = []
    for outcome in kills.trials(CASES[kind], count, folder, random.Random(f"{seed} {kind}"), again):
        outcomes.append(outcome)
        print(kind, outcome, flush=True)
    steps = " ".join(str(outcome.meta_steps) for outcome in outcomes)
    lost, different = (sum(bool(part) for part in column) for column in list(zip(*outcomes, strict=True))[1:])
    check = "SIGKILL twice and resume" if again else "SIGKILL and resume"
    return Row(check, kind, count, lost, different, f"gone on from meta-steps {steps}")


def held(kind: str, count: int, samples: list[memory.Sample]) -> Row:
    """Look whether a process held more and more."""
    grown, last = memory.growth(samples), samples[-1]
    lost = int(grown.memory > memory.LEAK or grown.files > memory.FILES or grown.processes > 0)
    detail = f"{len(samples)} samples; second half against first: {grown.memory / 1e6:+.1f} MB, {grown.files:+d} files"
    detail += f", {grown.processes:+d} processes; from {samples[0].memory / 1e6:.0f} to {last.memory / 1e6:.0f} MB"
    return Row("memory", kind, count, lost, 0, detail)


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """All that is asked for."""
    for number, kind in enumerate(options.kinds):
        share = options.kills // len(options.kinds) + (number < options.kills % len(options.kinds))
        if share:
            yield killed(kind, share, folder / kind, options.seed)
    for number, kind in enumerate(options.kinds):
        share = options.twice // len(options.kinds) + (number < options.twice % len(options.kinds))
        if share:
            yield killed(kind, share, folder / f"{kind}, twice", options.seed, again=True)
    if options.steps:
        yield held("meta-steps", options.steps, memory.of_training(options.steps, options.samples, folder / "training"))
    if options.modules:
        yield held(
            "data modules", options.modules, memory.of_modules(options.modules, options.samples, folder / "modules")
        )


def main() -> int:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kills", type=int, default=100, help="runs that are killed, shared among the kinds; 0 for none"
    )
    parser.add_argument("--twice", type=int, default=20, help="runs that are killed again before the next checkpoint")
    parser.add_argument("--kinds", nargs="+", choices=CASES, default=[*CASES], metavar="KIND")
    parser.add_argument("--steps", type=int, default=20_000, help="meta-steps of the long run; 0 for none")
    parser.add_argument("--modules", type=int, default=1_000, help="data modules; 0 for none")
    parser.add_argument("--samples", type=int, default=200, help="measurements of memory; as many validations")
    parser.add_argument("--collect", action="store_true", help="collect cycles before each, as a short run needs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    processes.warm()
    if options.collect:
        memory.collect()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            found.append(row)
            print(*row, sep=" | ", flush=True)
            with options.output.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([Row._fields, *found])
    return int(any(row.lost or row.different for row in found))


if __name__ == "__main__":
    sys.exit(main())
