"""How often do the 95% intervals of a test cover the truth? Simulations of tests whose true accuracy is known.

    python benchmarks/studies/interval_coverage.py [--simulations 20000]

A test is N tasks of Q queries. All queries are answered independently (correlation 0), or the tasks are of different
difficulty: each has its own probability from a beta distribution, so that two answers within a task correlate. The
correlation that a test's own figures show is (d - 1) / (Q - 1) with d = Q s^2 / (accuracy (1 - accuracy)); the last
line prints its quartiles in docs/results. Writes benchmarks/results/interval_coverage.csv with the coverage in % of the
normal interval (the ± of papers), of Wilson's with the effective number of tasks, and of what a test prints: the normal
one, and Wilson's where fewer than 30 effective answers are wrong.
"""

import argparse
import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from lightning_meta import results_file
from lightning_meta.intervals import NORMAL_975, is_normal, of_accuracy, wilson

ROOT = Path(__file__).parents[2]
ACCURACIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
TASKS = (100, 300, 600, 1000, 10_000)
SHOWN_TASKS = (100, 600, 10_000)
QUERIES = (5, 75)  # 5-way, 1 and 15 of each class
CORRELATIONS = (0.0, 0.05, 0.1)


def simulate(
    accuracy: float, tasks: int, queries: int, correlation: float, simulations: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Means and half-widths of the normal interval of many tests, each (simulations,).

    A test draws how many of its tasks have 0, 1, ... right answers, which is all that mean and deviation depend on.
    """
    right = np.arange(queries + 1)
    if correlation:
        spread = 1 / correlation - 1
        chances = stats.betabinom.pmf(right, queries, accuracy * spread, (1 - accuracy) * spread)
    else:
        chances = stats.binom.pmf(right, queries, accuracy)
    counts = np.random.default_rng(seed).multinomial(tasks, chances / chances.sum(), simulations)
    values = right / queries
    means = counts @ values / tasks
    squares = (counts * (values - means[:, None]) ** 2).sum(1)
    return means, NORMAL_975 * np.sqrt(squares / (tasks - 1) / tasks)


def coverage(accuracy: float, tasks: int, queries: int, correlation: float, simulations: int) -> dict[str, float]:
    """Shares of tests, in %, whose interval holds the true accuracy; and that are printed with brackets."""
    found = {"normal": 0, "wilson": 0, "printed": 0, "bracketed": 0}
    for mean, half_width in zip(*simulate(accuracy, tasks, queries, correlation, simulations), strict=True):
        figure = float(mean), float(half_width), tasks
        found["normal"] += mean - half_width <= accuracy <= mean + half_width
        for name, interval in (("wilson", wilson), ("printed", of_accuracy)):
            low, high = interval(*figure)
            found[name] += low <= accuracy <= high
        found["bracketed"] += not is_normal(*figure)
    return {name: 100 * number / simulations for name, number in found.items()}


def correlations() -> Iterator[float]:
    """Of the answers within a task, in all tests of docs/results."""
    for path in sorted(ROOT.glob("docs/results/**/results.json")):
        for entry in results_file.read(path):
            metric, queries = entry.metrics.get("query_accuracy"), entry.task_queries
            if entry.split != "test" or metric is None or not queries or queries < 2 or not 0 < metric.mean[-1] < 1:
                continue
            variance = (metric.half_width[-1] / NORMAL_975) ** 2 * metric.tasks
            effect = queries * variance / (metric.mean[-1] * (1 - metric.mean[-1]))
            yield (effect - 1) / (queries - 1)


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of docs/studies.md: lowest and highest coverage over queries and correlations."""
    shown = [f"{tasks:,} tasks, {name}" for tasks in SHOWN_TASKS for name in ("±", "as printed")]
    lines = [f"| accuracy, % | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for accuracy in ACCURACIES:
        cells = [f"{100 * accuracy:g}"]
        for tasks, kind in product(SHOWN_TASKS, ("normal", "printed")):
            shares = [
                float(row[kind]) for row in rows if (float(row["accuracy"]), int(row["tasks"])) == (accuracy, tasks)
            ]
            cells.append(f"{min(shares)} to {max(shares)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate every cell and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=20_000, help="tests of each cell (default: %(default)s)")
    simulations = parser.parse_args().simulations
    path = ROOT / "benchmarks" / "results" / "interval_coverage.csv"
    rows: list[dict[str, str]] = []
    for correlation, queries, tasks, accuracy in product(CORRELATIONS, QUERIES, TASKS, ACCURACIES):
        found = coverage(accuracy, tasks, queries, correlation, simulations)
        cell = {"correlation": correlation, "queries": queries, "tasks": tasks, "accuracy": accuracy}
        rows.append(
            {name: str(value) for name, value in cell.items()} | {name: f"{share:.1f}" for name, share in found.items()}
        )
        print(*rows[-1].values(), flush=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(page(rows))
    print("correlation in docs/results, quartiles:", *(f"{one:.3f}" for one in statistics.quantiles(correlations())))


if __name__ == "__main__":
    main()
