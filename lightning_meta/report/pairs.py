"""Differences of rows that were tested on the same tasks, with the interval of the differences task by task."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_meta import escaping, task_values
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.published import PROTOCOLS, Protocol
from lightning_meta.report.rows import Estimate, Row, over_seeds
from lightning_meta.report.runs import Run
from lightning_meta.results_file import Evaluation
from lightning_meta.task_values import TaskValues

NOTE = (
    "Differences on the same tasks: each row less the best of those that were tested on the same ones (by a digest of "
    "the tasks), in points of accuracy or of the loss, with the 95% interval of the differences task by task; over "
    "several seeds as in the table."
)
TITLES = ("row", "less", "tasks", *PROTOCOLS)


class Difference(NamedTuple):
    """A row less another on the same tasks."""

    row: Row
    best: Row
    tasks: int  # over all seeds
    by_protocol: dict[Protocol, Estimate]


def find_differences(rows: Iterable[Row]) -> tuple[list[Difference], list[str]]:
    """What can be compared task by task, and a line for each file that cannot be read.

    Args:
        rows: of the table.
    """
    notes: list[str] = []
    read: dict[Path, list[TaskValues]] = {}
    groups: dict[tuple[str, ...], list[tuple[Row, dict[str, TaskValues]]]] = defaultdict(list)
    for row in rows:
        found = [_of_entry(run, entry, read, notes) for run, entry in zip(row.runs, row.entries, strict=True)]
        by_tasks = {values.tasks: values for values in found if values is not None}
        if len(by_tasks) == len(row.entries):  # every seed on tasks of its own
            groups[(row.kind, *sorted(by_tasks))].append((row, by_tasks))
    differences: list[Difference] = []
    for (kind, *_), members in groups.items():
        choose = max if kind == "accuracy" else min
        finite = [pair for pair in members if (figure := _main_figure(pair[0])) and math.isfinite(figure.mean)]
        if len(members) > 1 and finite:
            best = choose(finite, key=lambda pair: _main_figure(pair[0]).mean)  # type: ignore[union-attr]
            differences += [_difference(member, best) for member in members if member is not best]
    return differences, notes


def markdown(differences: Sequence[Difference]) -> str:
    """The table in Markdown below its note; nothing where there are no differences."""
    if not differences:
        return ""
    rows = [
        [
            escaping.markdown(_name(one.row)),
            escaping.markdown(_name(one.best)),
            f"{one.tasks:,}",
            *(_cell(one, protocol) for protocol in PROTOCOLS),
        ]
        for one in differences
    ]
    lines = [f"| {' | '.join(line)} |" for line in [TITLES, ["---"] * len(TITLES), *rows]]
    return "\n".join(["", NOTE, "", *lines]) + "\n"


def comma_separated(differences: Sequence[Difference]) -> str:
    """The table as CSV with bare numbers, one column each."""
    file = io.StringIO()
    columns = [f"{protocol.replace('-', '')}{end}" for protocol in PROTOCOLS for end in ("", "_half_width_95")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "less", "metric", "tasks", *columns])
    for one in differences:
        estimates = [one.by_protocol.get(protocol, Estimate(math.nan, math.nan)) for protocol in PROTOCOLS]
        numbers = [round(value, 6) for estimate in estimates for value in estimate]
        cells = [escaping.cell(_name(one.row)), escaping.cell(_name(one.best)), one.row.kind, one.tasks, *numbers]
        writer.writerow(cells)
    return file.getvalue()


def _of_entry(run: Run, entry: Evaluation, read: dict[Path, list[TaskValues]], notes: list[str]) -> TaskValues | None:
    """The values of the single tasks of a test; None where its run kept none."""
    for path in (run.folder / task_values.NAME, run.folder / "checkpoints" / task_values.NAME):
        if path not in read:
            read[path] = []
            try:
                read[path] = task_values.read(path) if path.exists() else []
            except MetaLearningError as error:
                notes.append(f"warning: no differences task by task: {error}")
        for values in read[path]:
            if values.evaluation == list(entry.identity):
                return values
    return None


def _main_figure(row: Row) -> Estimate | None:
    return row.figure("transductive")


def _difference(member: tuple[Row, dict[str, TaskValues]], best: tuple[Row, dict[str, TaskValues]]) -> Difference:
    row, values = member
    by_protocol: dict[Protocol, Estimate] = {}
    tasks = 0
    for protocol in PROTOCOLS:
        name, pairs = row.metric(protocol), []
        for digest, ours in values.items():
            first = ours.after(row.inner_step, name)
            second = best[1][digest].after(best[0].inner_step, name)
            if first and len(first) == len(second):
                pairs.append((*task_values.difference(first, second), len(first)))
        if len(pairs) == len(values):
            means, half_widths, counts = zip(*pairs, strict=True)
            by_protocol[protocol] = over_seeds(
                [row.scale * mean for mean in means], [row.scale * half_width for half_width in half_widths]
            )
            tasks = sum(counts)
    return Difference(row, best[0], tasks, by_protocol)


def _name(row: Row) -> str:
    return row.name if row.main else f"{row.name}, {row.checkpoint}"


def _cell(difference: Difference, protocol: Protocol) -> str:
    estimate = difference.by_protocol.get(protocol)
    if estimate is None:
        return ""
    if not math.isfinite(estimate.mean):
        return "diverged"
    digits = 2 if difference.row.kind == "accuracy" else 4
    return f"{estimate.mean:+.{digits}f} ± {estimate.half_width:.{digits}f}"
