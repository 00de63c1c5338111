"""The table of all rows: Markdown and LaTeX for people, CSV for programs."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Sequence

from lightning_meta import escaping
from lightning_meta.report.published import PROTOCOLS, Protocol
from lightning_meta.report.rows import Row

TITLES = (
    "experiment", "algorithm", "data", "task", "meta-steps", "seeds", "device", "minutes", "checkpoint", "inner steps",
    "test tasks", "transductive", "non-transductive", "published", "difference", "verdict",
)  # fmt: skip
COLUMNS = ("method", *TITLES)
PAPER = ("method", "data", "task", "transductive", "non-transductive", "published")  # what a page has room for

NOTES = (
    "Accuracy in % (or the loss, where it says so) on unseen tasks, ± the half-width of the 95% interval: of one seed "
    "the normal interval over test tasks; of several seeds their mean with Student's t interval over seeds, which "
    "holds the spread of training and of test tasks, but never less than the tasks alone allow. In brackets Wilson's "
    "interval, where ± is too narrow so near to 0 or 100%.",
    "Transductive: the queries of a task are classified together; non-transductive: one at a time. The difference is "
    "ours less the published figure under the protocol of the source; inside: the two intervals overlap. "
    "Meta-steps: done, of those of a whole run, which are the source's where it states them. Minutes: of training, "
    "mean over seeds. Checkpoint: the best of all validations by what is named, the end or the last of the training, "
    "or another file. Test tasks: of each seed, by queries of a task.",
)


def markdown(rows: Sequence[Row], columns: Sequence[str] = TITLES) -> str:
    """The table in Markdown, with the notes, the sources and the commands below.

    Args:
        rows: of the table.
        columns: some of `COLUMNS`.
    """
    cells = [[escaping.markdown(cell) for cell in _cells(row, columns)] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells]]
    commands = {
        f"- {escaping.markdown(row.name)}, {row.meta_steps} meta-steps: {escaping.code(command)}": None
        for row in rows
        if (command := row.entries[0].command)
    }
    blocks = [lines, *([note] for note in NOTES), *([source] for source in sources(rows)), list(commands)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def latex(rows: Sequence[Row], columns: Sequence[str] = PAPER) -> str:
    """The table for LaTeX with the package booktabs, and the notes below.

    Rows on the same data and kind of task stand together, and the best figure of each protocol among them is bold, as
    are those that print the same.

    Args:
        rows: of the table, in its order.
        columns: some of `COLUMNS`.
    """
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.data, row.task, row.kind].append(row)
    bodies = []
    for members in groups.values():
        best = {protocol: _best(members, protocol) for protocol in PROTOCOLS}
        lines = []
        for row in members:
            cells = [escaping.latex(cell) for cell in _cells(row, columns)]
            for place, column in enumerate(columns):
                if cells[place] and cells[place] == escaping.latex(best.get(column, "")):  # type: ignore[call-overload]
                    cells[place] = f"\\textbf{{{cells[place]}}}"
            lines.append(" & ".join(cells) + " \\\\")
        bodies.append("\n".join(lines))
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{'l' * len(columns)}}}",
        "\\toprule",
        " & ".join(escaping.latex(title) for title in columns) + " \\\\",
        "\\midrule",
        "\n\\midrule\n".join(bodies),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    notes = [f"\\par\\smallskip\\footnotesize {escaping.latex(note)}" for note in (*NOTES, *sources(rows))]
    return "\n".join([*lines, *notes]) + "\n"


def _best(rows: Sequence[Row], protocol: Protocol) -> str:
    """The best figure as the table shows it; empty where nothing compares with it."""
    figures = [(figure.mean, row) for row in rows if (figure := row.figure(protocol)) and math.isfinite(figure.mean)]
    if len(figures) < 2:
        return ""
    choose = max if rows[0].kind == "accuracy" else min
    return _figure(choose(figures, key=lambda pair: pair[0])[1], protocol)


def sources(rows: Sequence[Row]) -> list[str]:
    """Where the published figures are from, in one line where there are any."""
    papers = sorted({str(row.published.source) for row in rows if row.published})
    return [f"Published: {'; '.join(papers)}."] if papers else []


def comma_separated(rows: Sequence[Row]) -> str:
    """The table as CSV with bare numbers, one column each."""
    file = io.StringIO()
    records = [{name: escaping.cell(value) for name, value in _record(row).items()} for row in rows]
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    first, minutes = row.entries[0], row.minutes
    name = f"query_{row.kind}"
    tasks = " and ".join(sorted({str(entry.metrics[name].tasks) for entry in row.entries}))
    difference = row.difference()
    cells: dict[str, str] = {
        "method": f"{row.method}, untrained" if row.untrained else row.method,
        "experiment": row.name,
        "algorithm": row.first.algorithm,
        "data": row.data,
        "task": row.task,
        "meta-steps": row.meta_steps,
        "seeds": seeds(row),
        "device": devices(row),
        "minutes": "" if minutes is None else f"{minutes:.1f}",
        "checkpoint": row.checkpoint,
        "inner steps": str(row.inner_step),
        "test tasks": f"{tasks} x {first.task_queries}" if first.task_queries else tasks,
        **{protocol: _figure(row, protocol) for protocol in PROTOCOLS},
        "published": _published(row),
        "difference": "" if difference is None or math.isnan(difference) else f"{difference:+.2f}",
        "verdict": row.verdict(),
    }
    return [cells[column] for column in columns]


def seeds(row: Row) -> str:
    """The seeds of a row, in order."""
    return ", ".join("?" if run.seed is None else str(run.seed) for run in row.runs)


def devices(row: Row) -> str:
    """The devices of a row, each once."""
    return "; ".join(sorted({entry.device for entry in row.entries if entry.device}))


def _figure(row: Row, protocol: Protocol) -> str:
    figure = row.figure(protocol)
    if figure is None:
        return ""
    if not math.isfinite(figure.mean):
        return f"diverged in {row.diverged(protocol)} tasks"
    digits, unit = (2, "") if row.kind == "accuracy" else (4, "loss ")
    bounds = row.bounds(protocol)
    within = f" [{bounds.low:.{digits}f}, {bounds.high:.{digits}f}]" if bounds else ""
    return f"{unit}{figure.mean:.{digits}f} ± {figure.half_width:.{digits}f}{within}"


def _published(row: Row) -> str:
    if row.published is None:
        return ""
    return f"{row.published} ({row.published.protocol})"


def _record(row: Row) -> dict[str, object]:
    run, published, difference = row.first, row.published, row.difference()
    figures: dict[str, object] = {}
    for protocol in PROTOCOLS:
        figure = row.figure(protocol)
        name = protocol.replace("-", "")
        figures[name] = round(figure.mean, 6) if figure else None
        figures[f"{name}_half_width_95"] = round(figure.half_width, 6) if figure else None
        figures[f"{name}_diverged"] = row.diverged(protocol)
    return {
        "experiment": run.experiment,
        "setting": row.setting,
        "members": row.members,
        "algorithm": run.algorithm,
        "data": row.data,
        "ways": row.ways,
        "shots": row.shots,
        "meta_steps": run.meta_steps,
        "full_meta_steps": row.full_meta_steps,
        "seeds": seeds(row),
        "device": devices(row),
        "minutes": row.minutes,
        "checkpoint": row.checkpoint,
        "inner_steps": row.inner_step,
        "tasks": row.entries[0].metrics[f"query_{row.kind}"].tasks,
        "queries_per_task": row.entries[0].task_queries,
        "metric": row.kind,
        **figures,
        "published": published.mean if published else None,
        "published_half_width_95": published.half_width if published else None,
        "published_transductive": published.protocol == "transductive" if published else None,
        "published_arxiv": published.source.arxiv if published else None,
        "difference": None if difference is None else round(difference, 6),
        "verdict": row.verdict(),
        "runs": " ".join(str(run.folder) for run in row.runs),
        "command": row.entries[0].command,
    }
