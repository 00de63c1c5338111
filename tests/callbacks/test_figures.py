"""What the figures of one learner hold."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from lightning_meta.callbacks.figures import (
    adaptation_curve,
    confusion_matrix,
    episode_grid,
    fitted_curves,
)
from lightning_meta.episode import Episode
from lightning_meta.metrics import Interval


def interval(*mean: float, half_width: float = 0.1) -> Interval:
    zeros = torch.zeros(len(mean), dtype=torch.int64)
    return Interval(torch.tensor(mean), torch.full((len(mean),), half_width), 60, zeros, list(range(len(mean))))


def labels(axes: Axes) -> list[str]:
    assert axes.get_legend() is None
    return [text.get_text() for text in axes.texts]


def learner(outputs: torch.Tensor, steps: list[int] | None = None) -> Any:
    scores = SimpleNamespace(steps=steps or list(range(outputs.shape[1])))
    return SimpleNamespace(all_predictions=lambda episode: SimpleNamespace(query=outputs), scores=scores)


def episode(support_x: torch.Tensor, support_y: torch.Tensor, query_x: torch.Tensor, query_y: torch.Tensor) -> Episode:
    empty = torch.zeros(1, 0)
    return Episode(support_x, support_y, query_x, query_y, empty, torch.tensor([7]), empty)


def test_accuracies_are_shown_in_percent_with_bands_within_what_is_possible() -> None:
    means = {"support": interval(0.2, 1.0), "query": interval(0.2, 0.95), "query_nontransductive": interval(0.2, 0.7)}
    (axes,) = adaptation_curve({f"{part}_accuracy": mean for part, mean in means.items()}).axes
    assert axes.get_ylabel() == "accuracy (%)"
    assert labels(axes) == ["support", "query, transductive", "query, non-transductive"]
    assert [line.get_ydata()[-1] for line in axes.lines] == pytest.approx([100, 95, 70])  # type: ignore[index]
    bands = [band.get_paths()[0].get_extents() for band in axes.collections if isinstance(band, PolyCollection)]
    assert [(band.y0, band.y1) for band in bands] == [pytest.approx(ends) for ends in [(10, 100), (10, 100), (10, 80)]]


def test_protocols_that_agree_are_one_curve() -> None:
    names = ("support_loss", "query_loss", "query_nontransductive_loss")
    (axes,) = adaptation_curve(dict.fromkeys(names, interval(3.0, 0.5))).axes
    assert (axes.get_ylabel(), labels(axes)) == ("loss", ["support", "query"])


def test_wrong_predictions_stand_out() -> None:
    images, classes = torch.rand(1, 4, 1, 28, 28), torch.tensor([[0, 0, 1, 1]])
    outputs = torch.zeros(1, 2, 4, 2)
    outputs[0, -1, [0, 1, 2, 3], [0, 1, 1, 1]] = 1  # the second query is taken for the other class
    axes = episode_grid(learner(outputs), episode(images, classes, images, classes)).axes
    frames = {ax.spines["top"].get_edgecolor() for ax in axes if ax.get_xlabel() == "predicted 1"}
    assert len(frames) == 1
    colours = [ax.spines["top"].get_edgecolor() for ax in axes if ax.axison and ax.images]
    assert {colours.count(frame) for frame in frames} == {1}
    assert [ax.get_title(loc="left") for ax in axes if ax.get_title(loc="left")] == [
        "support",
        "queries, 3 of 4 correct",
    ]


def test_confusion_counts_the_diagonal() -> None:
    (axes,) = confusion_matrix(torch.tensor([[3, 1], [0, 4]])).axes
    assert axes.get_title(loc="left") == "7 of 8 queries correct"
    assert sorted(labels(axes)) == ["1", "3", "4"]


@pytest.mark.parametrize(
    ("steps", "names"),
    [(0, ["before"]), (1, ["before", "after 1 step"]), (5, ["before", "after 1 step", "after 5 steps"])],
)
def test_curves_before_and_after_adaptation(steps: int, names: list[str]) -> None:
    x = torch.linspace(-5, 5, 10)[None, :, None]
    outputs = torch.arange(steps + 1.0)[None, :, None, None].expand(1, steps + 1, 200, 1)
    (axes,) = fitted_curves(learner(outputs), episode(x, x, x, x)).axes
    assert labels(axes) == names
    assert [line.get_ydata()[0] for line in axes.lines] == [*range(min(steps, 2)), steps]  # type: ignore[index]
    assert axes.get_title(loc="left").startswith("Task 7: ")


def test_curves_name_the_inner_step_and_not_its_place_among_the_scored_ones() -> None:
    x = torch.linspace(-5, 5, 10)[None, :, None]
    outputs = torch.arange(13.0)[None, :, None, None].expand(1, 13, 200, 1)
    (axes,) = fitted_curves(learner(outputs, [*range(11), 20, 25]), episode(x, x, x, x)).axes
    assert labels(axes) == ["before", "after 1 step", "after 25 steps"]
    assert [line.get_ydata()[0] for line in axes.lines] == [0, 1, 12]  # type: ignore[index]
