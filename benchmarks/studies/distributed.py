"""Distributed MAML: duration and accuracy against workers, meta-steps and tasks, beside Soulier's thesis.

    python benchmarks/studies/distributed.py --root DATA [--rounds 3] [--steps 20] [--tasks 4]

Soulier 2020 (TH Koeln) scales workers, epochs and tasks by 1, 2, 4, 8, 16 and gives the duration in percent of that at
1 (tables 6.2 and 6.4, figure 6.24; the pairs' figures are not at hand). Here a worker makes 20 meta-steps of 4 tasks at
ratio 1, and each has its own tasks, as there; workers are joined by the arithmetic mean at every fifth meta-step.

- **measured** durations are training alone, after the first five meta-steps, which trace the graph: medians of rounds
  in which all runs take turns. A run of E meta-steps is the beginning of one of 16 E. Two workers are two processes of
  one thread each, against one such process; start-up is the time from the command to the first meta-step.
- **simulated** durations (4 workers and more, and what is too long to run) are those of a clock where every worker has
  a core to itself: between two joinings each draws its meta-steps from the measured ones, all wait for the slowest, and
  the joining takes what it took here, on gloo, with that many processes and bytes, which share this machine's cores.
- **accuracy** is real in every row that has one: transductive, three inner steps, 200 tasks of unseen classes, seed 0.
  Several workers then take turns in one process, which is the same mathematics (`joined_runs.Copies`).

Prints a table and writes ``distributed.csv`` and ``distributed.png``.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from joined_runs import EVERY, WARM, Accuracy, Clock, Copies, measure_joining, quiet, train
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_meta.distributed import ArithmeticMean

RESULTS = Path(__file__).parents[1] / "results"
RATIOS = [1, 2, 4, 8, 16]
AXES = ["workers", "epochs", "tasks", "workers and epochs", "workers and tasks", "epochs and tasks"]
SOULIER = {  # percent of ratio 1
    "workers": [100, 97.67, 124.96, 131.01, 143.03],
    "epochs": [100, 194.26, 374.03, 742.42, 1498.17],
    "tasks": [100, 195.8, 376.96, 745.58, 1520.85],
}
LONGEST_PAIR = 4  # ratio up to which pairs are run
SIMULATIONS = 200


class Scale(NamedTuple):
    """How often the base numbers a run has."""

    workers: int
    epochs: int
    tasks: int


def scale_of(axis: str, ratio: int) -> Scale:
    """What a point of an axis scales."""
    return Scale(*(ratio if name in axis else 1 for name in Scale._fields))


def runs_of(workers: list[int]) -> dict[tuple[int, int], list[int]]:
    """The runs for these numbers of workers: (workers, tasks) and the readings on the way, all in ratios."""
    runs: dict[tuple[int, int], set[int]] = defaultdict(set)
    for axis in AXES:
        for ratio in RATIOS:
            scale = scale_of(axis, ratio)
            if scale.workers in workers and (" and " not in axis or ratio <= LONGEST_PAIR):
                runs[scale.workers, scale.tasks].add(scale.epochs)
    return {run: sorted(epochs) for run, epochs in runs.items()}


def simulate(workers: int, steps: int, seconds: list[float], joining: float) -> float:
    """Median duration of a run whose workers each have a core to themselves."""
    draw = random.Random(0)
    totals = []
    for _ in range(SIMULATIONS):
        blocks = [min(EVERY, steps - first) for first in range(0, steps, EVERY)]
        slowest = sum(max(sum(draw.choices(seconds, k=block)) for _ in range(workers)) for block in blocks)
        totals.append(slowest + joining * len(blocks) * (workers > 1))
    return statistics.median(totals)


class Study:
    """All measurements.

    Args:
        root: folder that holds omniglot-py.
        steps: meta-steps at ratio 1.
        tasks: tasks of a worker at ratio 1.
    """

    def __init__(self, root: str, steps: int, tasks: int) -> None:
        self.root, self.steps, self.tasks = root, steps, tasks
        self.seconds: dict[Scale, list[float]] = defaultdict(list)  # of every round
        self.relative: dict[Scale, list[float]] = defaultdict(list)  # percent of ratio 1, of every round
        self.step_seconds: dict[int, list[float]] = defaultdict(list)  # one worker's, by the ratio of tasks
        self.startup: dict[int, list[float]] = defaultdict(list)  # by workers
        self.accuracy: dict[Scale, tuple[float, float]] = {}
        self.joining: dict[int, tuple[float, int]] = {}

    def one_round(self, first: bool) -> None:
        """All runs that are measured, once; the first round tests as well."""
        base = 0.0
        for (_, tasks), epochs in runs_of([1]).items():
            clock, marks = Clock(), [ratio * self.steps for ratio in epochs]
            accuracy = Accuracy(marks if first else [], clock)
            train(self.root, 0, tasks * self.tasks, max(marks) + WARM, [clock, accuracy])
            self.step_seconds[tasks] += clock.seconds
            for ratio, mark in zip(epochs, marks, strict=True):
                scale, seconds = Scale(1, ratio, tasks), sum(clock.seconds[:mark])
                base = base or seconds
                self.note(scale, seconds, base)
                if first:
                    self.accuracy[scale] = accuracy.found[mark]
        (alone,) = self.real(1, {(1, 1): [1]})
        runs = runs_of([2])
        readings = self.real(2, runs)
        for ((_, tasks), epochs), seconds_of in zip(runs.items(), readings, strict=True):
            for ratio, seconds in zip(epochs, seconds_of, strict=True):
                self.note(Scale(2, ratio, tasks), seconds, alone[0])

    def note(self, scale: Scale, seconds: float, base: float) -> None:
        """Keep a duration."""
        self.seconds[scale].append(seconds)
        self.relative[scale].append(100 * seconds / base)

    def real(self, workers: int, runs: dict[tuple[int, int], list[int]]) -> list[list[float]]:
        """Seconds of these runs, each after its readings, in processes of their own."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "seconds.json"
            named = [
                f"{tasks * self.tasks}:{','.join(str(ratio * self.steps) for ratio in epochs)}"
                for (_, tasks), epochs in runs.items()
            ]
            script = [sys.executable, str(Path(__file__).with_name("joined_runs.py")), str(workers), self.root, "0"]
            since = time.time()
            subprocess.run([*script, str(file), *named], check=True, capture_output=True, timeout=600)
            found = json.loads(file.read_text())
        self.startup[workers].append(found["started"] - since)
        readings: list[list[float]] = found["readings"]
        return readings

    def copies(self) -> None:
        """Accuracy of several workers, which take turns."""
        for (workers, tasks), epochs in runs_of([ratio for ratio in RATIOS if ratio > 1]).items():
            marks = [ratio * self.steps for ratio in epochs]
            accuracy = Accuracy(marks, Clock(), workers)
            turns = [Copies(workers, ArithmeticMean()), accuracy]
            train(self.root, 0, tasks * self.tasks, workers * (max(marks) + WARM), turns)
            for ratio, mark in zip(epochs, marks, strict=True):
                self.accuracy[Scale(workers, ratio, tasks)] = accuracy.found[mark]

    def row(self, axis: str, ratio: int) -> dict[str, Any]:
        """One row of the table."""
        scale = scale_of(axis, ratio)
        row: dict[str, Any] = {"axis": axis, "ratio": ratio, "workers": scale.workers}
        row |= {"meta_steps": scale.epochs * self.steps, "tasks": scale.tasks * self.tasks}
        clock = self.clock(scale)
        measured = self.seconds.get(scale)
        low, middle, high = spread(self.relative[scale] if measured else [100 * clock / self.clock(Scale(1, 1, 1))])
        row |= {"duration": "measured" if measured else "simulated"}
        row |= {"seconds": round(statistics.median(measured) if measured else clock, 2)}
        row |= {"percent": round(middle, 1), "percent_low": round(low, 1), "percent_high": round(high, 1)}
        row["clock_seconds"] = round(clock, 2)
        if axis in SOULIER:
            row["soulier_percent"] = SOULIER[axis][RATIOS.index(ratio)]
        if scale in self.accuracy:
            row |= {"accuracy": round(self.accuracy[scale][0], 4), "half_width_95": round(self.accuracy[scale][1], 4)}
        if scale.workers in self.startup:
            row["startup_seconds"] = round(statistics.median(self.startup[scale.workers]), 1)
        if scale.workers in self.joining:
            seconds, size = self.joining[scale.workers]
            row |= {"joining_ms": round(1e3 * seconds, 2), "joining_bytes": size}
        return row

    def clock(self, scale: Scale) -> float:
        """The simulated duration."""
        joining, _ = self.joining.get(scale.workers, (0.0, 0))
        return simulate(scale.workers, scale.epochs * self.steps, self.step_seconds[scale.tasks], joining)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Lowest, median, highest."""
    return min(values), statistics.median(values), max(values)


def draw(rows: list[dict[str, Any]]) -> None:
    """Durations beside the thesis's, those of the pairs, and accuracies."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    single, pairs, accuracies = figure.subplots(1, 3)
    for place, axis in enumerate(AXES):
        points = [row for row in rows if row["axis"] == axis]
        draw_durations(pairs if " and " in axis else single, points, f"C{place}")
        tested = [row for row in points if "accuracy" in row]
        values, widths = ([100 * row[name] for row in tested] for name in ("accuracy", "half_width_95"))
        accuracies.errorbar([row["ratio"] for row in tested], values, widths, label=axis, marker="o", capsize=2)
    for axes, title in ((single, "one thing scaled"), (pairs, "two things scaled"), (accuracies, "accuracy")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(RATIOS, [str(ratio) for ratio in RATIOS])
        axes.set(xlabel="ratio", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in (single, pairs):
        axes.set_yscale("log")
        axes.set_ylabel("duration in % of ratio 1")
    accuracies.set_ylabel("accuracy in %, unseen classes, 3 inner steps")
    figure.savefig(RESULTS / "distributed.png", dpi=120)


def draw_durations(axes: Axes, points: list[dict[str, Any]], color: str) -> None:
    """Full marks were measured, hollow squares simulated, crosses are the thesis's."""
    name = points[0]["axis"]
    axes.plot([row["ratio"] for row in points], [row["percent"] for row in points], color=color, linewidth=1)
    for kind, marker, face in (("measured", "o", color), ("simulated", "s", "white")):
        chosen = [row for row in points if row["duration"] == kind]
        if chosen:
            axes.plot(
                [row["ratio"] for row in chosen], [row["percent"] for row in chosen], marker, color=color,
                markerfacecolor=face, label=f"{name}, {kind}",
            )  # fmt: skip
    if name in SOULIER:
        axes.plot(RATIOS, SOULIER[name], "x:", color=color, label=f"{name}, Soulier")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", required=True, help="folder that holds omniglot-py")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every run that is timed")
    parser.add_argument("--steps", type=int, default=20, help="meta-steps at ratio 1, a multiple of 5")
    parser.add_argument("--tasks", type=int, default=4, help="tasks of a worker at ratio 1")
    options = parser.parse_args()
    if options.steps % EVERY:
        parser.error(f"--steps is {options.steps}, expected a multiple of {EVERY}: a run ends with a joining")
    quiet()
    study = Study(options.root, options.steps, options.tasks)
    study.joining = {workers: measure_joining(workers) for workers in RATIOS if workers > 1}
    for place in range(options.rounds):
        study.one_round(first=place == 0)
    study.copies()
    rows = [study.row(axis, ratio) for axis in AXES for ratio in RATIOS]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (RESULTS / "distributed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    shown = [name for name in columns if not name.startswith("joining")]
    print("".join(f"{name:>19}" for name in shown))
    for row in rows:
        print("".join(f"{row.get(name, '')!s:>19}" for name in shown))
    print("joining:", *(f"{workers} workers {1e3 * found[0]:.2f} ms" for workers, found in study.joining.items()))
    draw(rows)


if __name__ == "__main__":
    main()
