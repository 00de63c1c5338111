"""A figure of panels, each of which compares methods: curves with bands, or points with bars, named where they are."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lightning_meta.curve_labels import LINE, Box, Label, label_ends, label_points, spread
from lightning_meta.escaping import printable
from lightning_meta.report.rows import Estimate

STYLES = ("-", "--", "-.", (0, (1, 1)))  # of several curves of one method in a panel


class Series(NamedTuple):
    """A curve or a point of a panel."""

    panel: str  # what its curves have in common, the title
    kind: str  # accuracy or loss
    label: str
    colour: str
    x: list[Any]
    y: list[Estimate]  # an interval that is NaN is not drawn


class Style(NamedTuple):
    """What the axes of a figure have in common."""

    x_label: str
    y_label: str  # before the kind, such as "test"
    prepare: Callable[[Axes], None]  # scale and ticks of the x axis
    bars: bool = False  # bars for the intervals instead of bands
    shared: Callable[[str], str] | None = None  # panels for which this is equal have the same y axis


def draw(series: Iterable[Series], style: Style) -> Figure | None:
    """Two columns of panels; None where nothing compares with anything and no curve has two points."""
    panels: dict[tuple[str, str], list[Series]] = {}
    for line in map(_as_text, series):
        if any(math.isfinite(estimate.mean) for estimate in line.y):
            panels.setdefault((line.panel, line.kind), []).append(line)
    panels = {
        key: members for key, members in panels.items() if _has_curves(members) or (style.bars and len(members) > 1)
    }
    if not panels:
        return None
    columns = min(2, len(panels))
    most = max(len(members) for members in panels.values())
    width = 6.6 if columns == 1 else 5.6
    height = max(3.0 if len(panels) > 1 else 3.6, 1.1 + (1.6 if style.bars else 1.3) * most * LINE / 72)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.05, hspace=0.04)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn = []
    for axes, ((title, kind), members) in zip(grid, panels.items(), strict=False):
        _frame(axes, title, kind, style)
        ends = (_bars if style.bars else _bands)(axes, members)
        style.prepare(axes)
        drawn.append((axes, members, ends, title))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if note := _note(panels.values(), style):
        figure.supxlabel(note, size=7.5, color="#555555", x=0.01, ha="left")
    if style.shared:
        _share([(axes, style.shared(title)) for axes, _, _, title in drawn])
    curves = [(axes, label_ends(axes, ends)) for axes, members, ends, _ in drawn if _has_curves(members)]
    figure.draw_without_rendering()  # lays it out
    for axes, texts in curves:
        spread(axes, texts)
    for axes, members, ends, _ in drawn:
        if not _has_curves(members):
            label_points(figure, axes, ends, _obstacles(axes, members, figure.dpi))
    return figure


def _as_text(line: Series) -> Series:
    """With names that matplotlib shows as they are: a dollar sign would begin a formula."""
    x = [_text(value) if isinstance(value, str) else value for value in line.x]
    return line._replace(panel=_text(line.panel), label=_text(line.label), x=x)


def _text(name: str) -> str:
    return printable(name).replace("$", r"\$")


def _note(panels: Collection[Sequence[Series]], style: Style) -> str:
    """What the reader needs to know of bands, bars and dotted lines that are drawn."""
    known = any(estimate.half_width > 0 for members in panels for line in members for estimate in line.y)
    intervals = f"{'Bars' if style.bars else 'Bands'}: 95% intervals, over the tasks of one seed or over seeds."
    leads = any(_has_curves(members) for members in panels)
    if any(_is_cut(line) for members in panels for line in members):
        intervals += " Cut at what is possible."
    return "\n".join([intervals] * known + ["Dotted lines lead from the end of a curve to its name."] * leads)


def _has_curves(members: Sequence[Series]) -> bool:
    return any(len(line.x) > 1 for line in members)


def _frame(axes: Axes, title: str, kind: str, style: Style) -> None:
    axes.set_title(title, size=9.5, loc="left", weight="bold")
    axes.set_xlabel(_text(style.x_label), size=9)
    axes.set_ylabel(f"{style.y_label} {kind}{' (%)' if kind == 'accuracy' else ''}", size=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if kind == "loss":
        axes.set_yscale("log")


def _bands(axes: Axes, members: Sequence[Series]) -> list[Label]:
    """Curves with their intervals as bands, all of which the axes hold."""
    axes.margins(x=0.02)
    ends = []
    for line, dashes in zip(members, _dashes(members), strict=True):
        mean, low, high = [estimate.mean for estimate in line.y], *_limits(line)
        marker = "o" if len(line.x) <= 10 else ""
        axes.plot(line.x, mean, linestyle=dashes, color=line.colour, marker=marker, markersize=3, linewidth=1.5)
        axes.fill_between(line.x, low, high, color=line.colour, alpha=0.12 if len(members) < 6 else 0.07, linewidth=0)
        ends += _end(axes, line)
    return ends


def _bars(axes: Axes, members: Sequence[Series]) -> list[Label]:
    """Points with their intervals as bars, joined where they belong together."""
    ends = []
    for line, dashes in zip(members, _dashes(members), strict=True):
        mean, low, high = [estimate.mean for estimate in line.y], *_limits(line)
        reach = [[a - b for a, b in zip(mean, low, strict=True)], [b - a for a, b in zip(mean, high, strict=True)]]
        axes.errorbar(
            line.x, mean, reach, color=line.colour, marker="o", linestyle=dashes if len(line.x) > 1 else "none",
            capsize=2, markersize=4, linewidth=1.2, elinewidth=0.9,
        )  # fmt: skip
        ends += _end(axes, line)
    return ends


def _dashes(members: Sequence[Series]) -> list[Any]:
    """A line style for each curve: solid, and others for further curves of the same method."""
    seen: dict[str, int] = {}
    styles = []
    for line in members:
        styles.append(STYLES[seen.get(line.colour, 0) % len(STYLES)])
        seen[line.colour] = seen.get(line.colour, 0) + 1
    return styles


def _is_cut(line: Series) -> bool:
    """Whether an interval is wider than what `_limits` leaves of it."""
    pairs = zip(line.y, *_limits(line), strict=True)
    return any(
        min(estimate.mean - low, high - estimate.mean) < estimate.half_width * (1 - 1e-9)
        for estimate, low, high in pairs
    )


def _limits(line: Series) -> tuple[list[float], list[float]]:
    """Ends of the intervals within what is possible: 0 to 100%, or on the logarithmic axis of a loss above 0."""
    half = [0.0 if math.isnan(estimate.half_width) else estimate.half_width for estimate in line.y]
    low = [estimate.mean - width for estimate, width in zip(line.y, half, strict=True)]
    high = [estimate.mean + width for estimate, width in zip(line.y, half, strict=True)]
    if line.kind == "accuracy":
        return [max(value, 0.0) for value in low], [min(value, 100.0) for value in high]
    return [value if value > 0 else estimate.mean / 10 for value, estimate in zip(low, line.y, strict=True)], high


def _end(axes: Axes, line: Series) -> list[Label]:
    """The label of a curve, unless it diverged."""
    finite = [(x, estimate.mean) for x, estimate in zip(line.x, line.y, strict=True) if math.isfinite(estimate.mean)]
    return [Label(line.label, line.colour, float(axes.convert_xunits(x)), y) for x, y in finite[-1:]]


def _obstacles(axes: Axes, members: Sequence[Series], dpi: float) -> list[Box]:
    """The markers and bars of single points, in pixels."""
    side = 3 * dpi / 72
    boxes: list[Box] = []
    for line in members:
        low, high = _limits(line)
        for x, below, above in zip(line.x, low, high, strict=True):
            (left, lower), (_, upper) = axes.transData.transform([(x, below), (x, above)])
            boxes.append((left - side, lower - side, left + side, upper + side))
    return boxes


def _share(panels: Sequence[tuple[Axes, str]]) -> None:
    for axes, group in panels:
        limits = [
            other.get_ylim() for other, name in panels if name == group and other.get_yscale() == axes.get_yscale()
        ]
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def counts(axes: Axes) -> None:
    """An axis of whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def inner_steps(axes: Axes) -> None:
    """Beside a learner with many steps, those of one with few would be a dot: the first ones get more room."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if axes.dataLim.x1 > 12:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        ticks = [0, *(digit * 10**power for power in range(6) for digit in (1, 2, 5))]
        axes.set_xticks([tick for tick in ticks if tick <= axes.dataLim.x1], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers, wide enough that small differences look small."""
    axes.margins(y=0.1)
    axes.set_xscale("log")
    low, high = axes.dataLim.intervalx
    margin = max((high / low) ** 0.12, 2 / (high / low) ** 0.5)  # at least a factor of four from end to end
    low, high = low / margin, high * margin
    axes.set_xlim(low, high)
    digits = (1, 1.5, 2, 3, 5, 7) if high / low < 10 else (1, 2, 5) if high / low < 1000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain_axis(axes: Axes) -> None:
    """For numbers within a decade, and for words."""
    axes.margins(x=0.1)
