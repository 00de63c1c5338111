"""Pictures of all rows: learning, adaptation, cost, shots at test, and sweeps."""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from lightning_meta.report.published import Protocol
from lightning_meta.report.rows import Estimate, Row, over_seeds
from lightning_meta.report.settings import LENGTH, Sweep, describe, shown, sweeps, varying

# The colours of Okabe and Ito, which people who are colour-blind tell apart; and two of Tol's; yellow is too pale.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888", "#882255", "#999933")
MARKERS = "osD^vPX*<>"
PROTOCOL_LINES: dict[Protocol, str] = {"transductive": "-", "non-transductive": "--"}
STYLES = "solid: transductive, dashed: non-transductive"
LABEL_WIDTH = 100  # characters in a legend


class Series(NamedTuple):
    """A line, or several that share a colour."""

    panel: str  # title of the axes that it belongs to
    kind: str  # accuracy or loss
    label: str
    lines: list[tuple[list[Any], list[Estimate], str]]  # x, y, style; an interval that is NaN is not drawn


def draw_all(rows: Sequence[Row], protocol: Protocol) -> dict[str, Figure]:
    """All pictures for which the rows have something to show, by the names of their files.

    Args:
        rows: what to draw.
        protocol: of the accuracies; the picture of adaptation shows both.
    """
    drawn = {
        "learning_curves.png": _figure(
            _learning(rows, protocol), "meta-steps", f"validation, {protocol}", _counts, band=True
        ),
        "adaptation.png": _figure(
            _adaptation(rows), f"inner steps ({STYLES})", "test", _inner_steps, band=True, limit=5
        ),
        "cost.png": _figure(_cost(rows, protocol), "minutes of training", f"test, {protocol}", _log_axis),
        "shots.png": _figure(_shots(rows, protocol), "shots at test", f"test, {protocol}", _counts),
        **_sweeps(rows, protocol),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _panel(row: Row) -> str:
    """Data and kind of task; an experiment with several settings has a panel of its own."""
    return ", ".join(filter(None, (row.first.data, row.task, row.setting and row.first.experiment)))


def _label(row: Row) -> str:
    name = row.name.removeprefix(f"{row.first.experiment}, ") if row.setting else row.name
    return f"{name} ({row.meta_steps} meta-steps)"


def _learning(rows: Iterable[Row], protocol: Protocol) -> Iterable[Series]:
    for row in rows:
        curves = [_validation(row, index, protocol) for index in range(len(row.runs))]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        if steps and row.members == 1:
            means = [over_seeds([curve[step] * row.scale for curve in curves]) for step in steps]
            yield Series(_panel(row), row.kind, _label(row), [(steps, means, "-")])


def _validation(row: Row, index: int, protocol: Protocol) -> dict[int, float]:
    """The validation after the last inner step, by meta-steps."""
    columns = row.runs[index].validation
    if protocol == "transductive":
        return columns.get(f"val_{row.kind}", {})
    pattern = re.compile(rf"val/query_{row.kind}/step_(\d+)_nontransductive")
    found = {int(match[1]): name for name in columns if (match := pattern.fullmatch(name))}
    return columns[found[max(found)]] if found else {}


def _adaptation(rows: Iterable[Row]) -> Iterable[Series]:
    for row in rows:
        curves = [(row.curve(protocol), style) for protocol, style in PROTOCOL_LINES.items()]
        lines = [(list(range(len(curve))), curve, style) for curve, style in curves if curve]
        yield Series(_panel(row), row.kind, _label(row), lines)


def _cost(rows: Iterable[Row], protocol: Protocol) -> Iterable[Series]:
    for row in rows:
        figure = row.figure(protocol)
        if row.minutes and figure:
            yield Series(_panel(row), row.kind, _label(row), [([row.minutes], [figure], "")])


def _shots(rows: Iterable[Row], protocol: Protocol) -> Iterable[Series]:
    for row in rows:
        figures = row.by_shots(protocol)
        if len(figures) > 1:
            yield Series(_panel(row), row.kind, _label(row), [(list(figures), list(figures.values()), "-")])


def _sweeps(rows: Sequence[Row], protocol: Protocol) -> dict[str, Figure | None]:
    drawn: dict[str, Figure | None] = {}
    for experiment in sorted({row.first.experiment for row in rows}):
        own = [row for row in rows if row.first.experiment == experiment and row.members == 1 and row.figure(protocol)]
        found = sweeps([row.first.settings for row in own])
        for name in sorted({sweep.name for sweep in found}):
            of_name = [sweep for sweep in found if sweep.name == name]
            values = [value for sweep in of_name for value in sweep.values]
            words = any(isinstance(value, bool) or not isinstance(value, int | float) for value in values)
            series = [_sweep_line(sweep, own, words, protocol) for sweep in of_name]
            file = re.sub(r"[^\w.-]+", "_", f"{experiment}_{name}")
            while f"sweep_{file}.png" in drawn:
                file += "_"
            prepare = _log_axis if not words and 0 < 10 * min(values) < max(values) else _plain_axis
            drawn[f"sweep_{file}.png"] = _figure(series, name, f"test, {protocol}", prepare)
    return drawn


def _sweep_line(sweep: Sweep, rows: Sequence[Row], words: bool, protocol: Protocol) -> Series:
    """One line of a sweep, in the order of the values; what the other settings are is its label."""
    points = [(shown(value) if words else value, rows[i]) for value, i in zip(sweep.values, sweep.members, strict=True)]
    points.sort(key=lambda point: (point[0], point[1].first.meta_steps))
    last = dict(points)  # where a run was cut short, the longer one
    first = points[0][1]
    names = [
        key
        for key in varying([row.first.settings for row in rows])
        if key not in (sweep.name, LENGTH) and not key.startswith(f"{sweep.name}.")
    ]
    label = describe(first.first.settings, names) or first.first.experiment
    if sweep.name != LENGTH:
        label += f" ({first.meta_steps} meta-steps)"
    panels = {_panel(row) for row in last.values()}
    panel = panels.pop() if len(panels) == 1 else first.first.experiment
    figures = [figure for row in last.values() if (figure := row.figure(protocol))]
    return Series(panel, first.kind, label, [(list(last), figures, "-")])


def _figure(
    series: Iterable[Series], x_label: str, of: str, prepare: Callable[[Axes], None], band: bool = False,
    limit: int = len(COLOURS),
) -> Figure | None:  # fmt: skip
    """A grid of axes, one for each panel and for at most ``limit`` of its series; None where there are none."""
    panels: dict[tuple[str, str], list[Series]] = {}
    for line in series:
        panels.setdefault((line.panel, line.kind), []).append(line)
    parts = [
        (title, kind, members[start : start + limit], f" ({start // limit + 1})" if len(members) > limit else "")
        for (title, kind), members in panels.items()
        for start in range(0, len(members), limit)
    ]
    if not parts:
        return None
    columns = min(2, len(parts))
    lines = max(sum(len(textwrap.wrap(line.label, LABEL_WIDTH)) for line in members) for _, _, members, _ in parts)
    grid_rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(6.2 * columns, (4.0 + 0.16 * lines) * grid_rows), layout="constrained")
    grid = figure.subplots(grid_rows, columns, squeeze=False).ravel()
    for axes, (title, kind, members, number) in zip(grid, parts, strict=False):
        axes.set(title=title + number, xlabel=x_label, ylabel=f"{kind}{' (%)' if kind == 'accuracy' else ''}, {of}")
        axes.title.set_size(10)
        if kind == "loss":
            axes.set_yscale("log")
        (_draw_bands if band else _draw_bars)(axes, members)
        prepare(axes)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=6, fontsize=7, frameon=False)
    for axes in grid[len(parts) :]:
        axes.set_axis_off()
    return figure


def _draw_bars(axes: Axes, members: Sequence[Series]) -> None:
    for line, colour, marker in zip(members, COLOURS, MARKERS, strict=False):
        for x, estimates, style in line.lines:
            mean, half_width, label = _means(estimates), _half_widths(estimates), textwrap.fill(line.label, LABEL_WIDTH)
            axes.errorbar(x, mean, half_width, color=colour, fmt=marker + style, label=label, capsize=3, markersize=5)


def _draw_bands(axes: Axes, members: Sequence[Series]) -> None:
    """The axis holds the means; a band that is wider, such as that over two seeds, leaves it."""
    axes.margins(y=0.1)
    for line, colour, marker in zip(members, COLOURS, MARKERS, strict=False):
        for x, estimates, style in line.lines:
            label = textwrap.fill(line.label, LABEL_WIDTH) if style == line.lines[0][2] else None
            points = marker if len(x) < 30 else ""
            axes.plot(x, _means(estimates), style, color=colour, marker=points, markersize=3, label=label)
    limits = axes.get_ylim()
    for line, colour in zip(members, COLOURS, strict=False):
        for x, estimates, _ in line.lines:
            pairs = list(zip(_means(estimates), _half_widths(estimates), strict=True))
            low, high = [mean - half for mean, half in pairs], [mean + half for mean, half in pairs]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(limits)


def _means(estimates: Sequence[Estimate]) -> list[float]:
    return [estimate.mean for estimate in estimates]


def _half_widths(estimates: Sequence[Estimate]) -> list[float]:
    return [0.0 if math.isnan(estimate.half_width) else estimate.half_width for estimate in estimates]


def _counts(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _inner_steps(axes: Axes) -> None:
    """Beside a learner with many steps, those of one with few would be a dot: the first ones get more room."""
    last = axes.dataLim.x1
    if last <= 15:
        return _counts(axes)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.2, last * 1.2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([step for step in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if step <= last], minor=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return None


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers, also within a decade; a linear one where it would have no numbers."""
    axes.margins(x=0.15)
    low, high = axes.dataLim.intervalx
    if high < 1.5 * low:
        return
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high / low < 100:
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if _leads(value) else ""))
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _leads(value: float) -> bool:
    """Whether the first digit is one that leaves room for its neighbours."""
    return f"{value:e}"[0] in "125"


def _plain_axis(axes: Axes) -> None:
    """For numbers within a decade, and for words."""
    axes.margins(x=0.1)
