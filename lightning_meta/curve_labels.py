"""Labels at the curves and points themselves, placed so that none covers another."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

SIZE = 8.0  # points
LEADER = {"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
DISTANCES = (7, 12, 18, 26, 36, 48, 62)  # of a name from its point, points
LINE = 1.35 * SIZE  # height of a label with its distance to the next


class Label(NamedTuple):
    """A text, its colour and the point that it names, in data coordinates."""

    text: str
    colour: str
    x: float
    y: float


def label_ends(axes: Axes, labels: Sequence[Label]) -> list[Annotation]:
    """Names of curves on the right of the axes, each with a thin line to the end of its curve.

    They stand at the height of their curve until `spread` moves them apart.
    """
    left, right = axes.get_xlim()
    axes.set_xlim(left, right)  # the lines below shall not widen it
    texts = []
    for label in labels:
        axes.hlines(label.y, label.x, right, color=label.colour, linewidth=0.8, linestyle=":", alpha=0.8)
        at = (1.0, label.y)
        arrow = {
            "arrowstyle": "-",
            "color": label.colour,
            "linewidth": 0.8,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (0, 0.5),
        }
        text = axes.annotate(
            label.text, at, (18.0, 0.0), axes.get_yaxis_transform(), "offset points", arrow, annotation_clip=False,
            color=label.colour, size=SIZE, va="center", ha="left",
        )  # fmt: skip
        texts.append(text)
    return texts


def spread(axes: Axes, texts: Sequence[Annotation]) -> None:
    """Move labels of `label_ends` up and down until none covers another, as little as possible.

    The figure must have been laid out.
    """
    points = 72 / axes.figure.dpi
    box = axes.get_window_extent()
    heights = [float(axes.transData.transform((0, text.xy[1]))[1] - box.y0) * points for text in texts]
    for text, height, place in zip(texts, heights, apart(heights, LINE, 0, box.height * points), strict=True):
        text.xyann = (18.0, place - height)


def apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in the order of the values, at least a gap apart, with the least squared distance to them.

    That is an isotonic regression of the values less their share of the gaps, by pooling adjacent violators. Places lie
    within the limits; where there is no room for all, they leave the upper one.

    >>> apart([5.0, 1.0, 5.0], 2.0, 0.0, 10.0)
    [4.0, 1.0, 6.0]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    pools: list[tuple[float, int]] = []  # mean and size
    for rank, i in enumerate(order):
        mean, size = values[i] - rank * gap, 1
        while pools and pools[-1][0] >= mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    room = max(high - (len(values) - 1) * gap, low)
    shifted = [min(max(mean, low), room) for mean, size in pools for _ in range(size)]
    places = [0.0] * len(values)
    for rank, (i, place) in enumerate(zip(order, shifted, strict=True)):
        places[i] = place + rank * gap
    return places


Box = tuple[float, float, float, float]  # left, lower, right, upper, in pixels


def label_points(figure: Figure, axes: Axes, labels: Sequence[Label], obstacles: Sequence[Box]) -> None:
    """Names beside points: a free place near each, with a thin line to it where it is not adjacent.

    Names are placed one after another, each at the nearest free place, in several orders; the order with the least
    overlap and the shortest lines counts. The figure must have been laid out.

    Args:
        figure: to measure the texts.
        axes: where the points are.
        labels: their names.
        obstacles: what a name must not cover.
    """
    scale = figure.dpi / 72
    inside = tuple(axes.get_window_extent().extents)
    texts, points, sizes = [], [], []
    for label in labels:
        text = axes.annotate(
            label.text, (label.x, label.y), (0, 0), "data", "offset points", color=label.colour, size=SIZE, va="center",
        )  # fmt: skip
        extent = text.get_window_extent()
        texts.append(text)
        sizes.append((extent.width, extent.height))
        points.append(tuple(axes.transData.transform((label.x, label.y))))
    order = range(len(labels))
    orders = [sorted(order, key=lambda i: sign * points[i][axis]) for axis in (0, 1) for sign in (1, -1)]
    found = [_place(points, sizes, each, obstacles, inside, scale) for each in orders]
    _, boxes, far = min(found, key=lambda placement: placement[0])
    for label, text, (x, y), (left, lower, right, upper), line in zip(labels, texts, points, boxes, far, strict=True):
        text.xyann = ((left - x) / scale, (0.5 * (lower + upper) - y) / scale)
        if line:
            near = (min(max(x, left), right), min(max(y, lower), upper))
            ends = axes.transData.inverted().transform([(x, y), near])
            axes.annotate("", ends[0], ends[1], "data", "data", LEADER | {"color": label.colour, "shrinkB": 3})


def _place(
    points: Sequence[tuple[float, ...]], sizes: Sequence[tuple[float, float]], order: Sequence[int],
    obstacles: Sequence[Box], inside: tuple[float, ...], scale: float,
) -> tuple[float, list[Box], list[bool]]:  # fmt: skip
    """The cost of placing labels in this order, their boxes, and whether each is so far that it needs a line."""
    taken, total = list(obstacles), 0.0
    boxes: list[Box] = [(0, 0, 0, 0)] * len(order)
    far = [False] * len(order)
    for i in order:
        (x, y), (width, height) = points[i], sizes[i]
        least = math.inf
        for distance, turn in itertools.product(DISTANCES, range(16)):
            across, up = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
            shift = 0 if across > 0.2 else width if across < -0.2 else width / 2
            left, lower = x + scale * distance * across - shift, y + scale * distance * up - height / 2
            box = (left, lower, left + width, lower + height)
            covered = sum(_overlap(box, other) for other in taken) + width * height - _overlap(box, inside)
            cost = scale * distance + 10 * covered
            if cost < least - 1e-6:
                least, boxes[i], far[i] = cost, box, distance > DISTANCES[0]
            if covered < 1e-6:
                break
        taken.append(boxes[i])
        total += least
    return total, boxes, far


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
