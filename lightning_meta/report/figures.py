"""Figures of all rows: learning, adaptation, cost, shots at test, and sweeps."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from lightning_meta.report.methods import colour, data_name
from lightning_meta.report.panels import Series, Style, counts, draw, inner_steps, log_axis, plain_axis
from lightning_meta.report.published import PROTOCOLS, Protocol
from lightning_meta.report.rows import Estimate, Row, over_seeds
from lightning_meta.report.settings import LENGTH, Sweep, describe, shown, sweeps, varying

SPLIT = "data.split"
CURVE = 3  # validations that make a learning curve where nothing compares with it


def draw_all(rows: Sequence[Row], protocol: Protocol) -> dict[str, Figure]:
    """All figures for which the rows have something to show, by the names of their files.

    A panel compares the methods on one kind of task, each in the colour that `methods.colour` gives it.

    Args:
        rows: what to draw; of the further tests of a run only those of ensembles and with other shots.
        protocol: of the accuracies; the figure of adaptation shows both.
    """
    rows = [row for row in rows if row.main or row.members > 1]
    panels = _panels(rows)
    named = list(zip(rows, panels, _labels(rows, panels), strict=True))
    kinds = [", ".join(filter(None, (data_name(row.data), row.task))) for row in rows]  # however their data are split
    priced = list(zip(rows, kinds, _labels(rows, kinds), strict=True))
    counted = all(row.tasks_a_step for row in rows)
    validation, test = f"{protocol} validation", f"{protocol} test"
    figures = {
        "learning_curves.png": draw(
            _learning(named, protocol, counted), Style("tasks seen" if counted else "meta-steps", validation, counts)
        ),
        "adaptation.png": draw(
            _adaptation(named),
            Style("inner steps", "test", inner_steps, shared=lambda title: title.rpartition(", ")[0]),
        ),
        "cost.png": draw(_cost(priced, protocol), Style("minutes of training", test, log_axis, bars=True)),
        "shots.png": draw(_shots(named, protocol), Style("shots at test", test, log_axis, bars=True)),
        **_sweeps(rows, panels, protocol),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _panels(rows: Sequence[Row]) -> list[str]:
    """The panel of each row: data and kind of task; the split where the data are split in several ways.

    An experiment with several settings has a panel of its own.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.data].add(shown(row.first.settings.get(SPLIT)))
    panels = []
    for row in rows:
        several = len(splits[row.data]) > 1 and not row.setting
        split = f"split {shown(row.first.settings.get(SPLIT))}" if several else ""
        experiment = row.first.experiment if row.setting else ""
        panels.append(", ".join(filter(None, (data_name(row.data), row.task, split, experiment))))
    return panels


def _labels(rows: Sequence[Row], panels: Sequence[str]) -> list[str]:
    """The method of each row, with as much as tells it from others of the method in its panel."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (row, panel) in enumerate(zip(rows, panels, strict=True)):
        groups[panel, row.method].append(i)
    labels = [f"{row.method}, untrained" if row.untrained else row.method for row in rows]
    parts: list[Callable[[Row], str]] = [
        lambda row: re.sub(r"[\w.]+\.(\w+=)", r"\1", row.setting),
        lambda row: f"ensemble of {row.members}" if row.members > 1 else "",
        lambda row: row.first.experiment.rpartition("/")[2],
        lambda row: f"{row.first.meta_steps:,} meta-steps",
    ]
    for members in groups.values():
        for part in parts:
            if len({labels[i] for i in members}) < len(members) and len({part(rows[i]) for i in members}) > 1:
                for i in members:
                    labels[i] = ", ".join(filter(None, (labels[i], part(rows[i]))))
    return labels


Named = Iterable[tuple[Row, str, str]]  # row, panel, label


def _learning(named: Named, protocol: Protocol, counted: bool) -> Iterable[Series]:
    """Validations by tasks seen, of which methods take several numbers a meta-step, or else by meta-steps."""
    found = list(_curves(named, protocol, counted))
    panels = [line.panel for line in found]
    return [line for line in found if panels.count(line.panel) > 1 or len(line.x) >= CURVE]


def _curves(named: Named, protocol: Protocol, counted: bool) -> Iterable[Series]:
    for row, panel, label in named:
        curves = [_validation(row, index, protocol) for index in range(len(row.runs))]
        values = {step: [curve[step] * row.scale for curve in curves if step in curve] for step in set().union(*curves)}
        # The file of a resumed run may hold the end of its curve alone: two of several seeds make a band.
        steps = sorted(step for step in values if len(values[step]) >= min(2, len(curves)))
        if len(steps) > 1 and row.members == 1:
            means = [over_seeds(values[step]) for step in steps]
            each = (row.tasks_a_step or 1) if counted else 1
            yield Series(panel, row.kind, label, colour(row.method), [each * step for step in steps], means)


def _validation(row: Row, index: int, protocol: Protocol) -> Mapping[int, float]:
    """The validation after the last inner step, by meta-steps."""
    columns = row.runs[index].validation
    if protocol == "transductive":
        return columns.get(f"val_{row.kind}", {})
    pattern = re.compile(rf"val/query_{row.kind}/step_(\d+)_nontransductive")
    found = {int(match[1]): name for name in columns if (match := pattern.fullmatch(name))}
    return columns[found[max(found)]] if found else {}


def _adaptation(named: Named) -> Iterable[Series]:
    """Panels of both protocols, side by side."""
    rows = list(named)
    for wanted in dict.fromkeys(panel for _, panel, _ in rows):
        for protocol in PROTOCOLS:
            for row, panel, label in rows:
                curve = row.curve(protocol) if panel == wanted else {}
                if curve:
                    label_colour = colour(row.method)
                    yield Series(
                        f"{panel}, {protocol}", row.kind, label, label_colour, list(curve), list(curve.values())
                    )


def _cost(named: Named, protocol: Protocol) -> Iterable[Series]:
    for row, panel, label in named:
        figure = row.figure(protocol)
        if row.minutes and figure:
            yield Series(panel, row.kind, label, colour(row.method), [row.minutes], [figure])


def _shots(named: Named, protocol: Protocol) -> Iterable[Series]:
    for row, panel, label in named:
        figures = row.by_shots(protocol)
        if len(figures) > 1:
            yield Series(panel, row.kind, label, colour(row.method), list(figures), list(figures.values()))


def _sweeps(rows: Sequence[Row], panels: Sequence[str], protocol: Protocol) -> dict[str, Figure | None]:
    figures: dict[str, Figure | None] = {}
    for experiment in sorted({row.first.experiment for row in rows}):
        own = [
            (row, panel)
            for row, panel in zip(rows, panels, strict=True)
            if row.first.experiment == experiment and row.members == 1 and row.figure(protocol)
        ]
        found = sweeps([row.first.settings for row, _ in own])
        for name in sorted({sweep.name for sweep in found}):
            of_name = [sweep for sweep in found if sweep.name == name]
            values = [value for sweep in of_name for value in sweep.values]
            words = not all(_is_number(value) for value in values)
            series = [_sweep_line(sweep, own, words, protocol) for sweep in of_name]
            file = re.sub(r"[^\w.-]+", "_", f"{experiment}_{name}")
            while f"sweep_{file}.png" in figures:
                file += "_"
            prepare = log_axis if not words and 0 < 10 * min(values) < max(values) else plain_axis
            figures[f"sweep_{file}.png"] = draw(series, Style(name, f"{protocol} test", prepare, bars=True))
    return figures


def _is_number(value: object) -> bool:
    """Whether an axis can hold it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _sweep_line(sweep: Sweep, rows: Sequence[tuple[Row, str]], words: bool, protocol: Protocol) -> Series:
    """One line of a sweep, in the order of the values; what the other settings are is its label."""
    points = [(shown(value) if words else value, rows[i]) for value, i in zip(sweep.values, sweep.members, strict=True)]
    points.sort(key=lambda point: (point[0], point[1][0].first.meta_steps))
    last = dict(points)  # where a run was cut short, the longer one
    first = points[0][1][0]
    names = [
        key
        for key in varying([row.first.settings for row, _ in rows])
        if key not in (sweep.name, LENGTH) and not key.startswith(f"{sweep.name}.")
    ]
    setting = re.sub(r"[\w.]+\.(\w+=)", r"\1", describe(first.first.settings, names))
    panels = {panel for _, panel in last.values()}
    panel = panels.pop() if len(panels) == 1 else first.first.experiment
    figures: list[Estimate] = [figure for row, _ in last.values() if (figure := row.figure(protocol))]
    return Series(panel, first.kind, setting or first.method, colour(first.method), list(last), figures)
