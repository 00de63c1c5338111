"""What the figures hold: their curves, axes and labels."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from lightning_meta.report.figures import draw_all
from lightning_meta.report.published import Protocol
from lightning_meta.report.rows import build_rows
from lightning_meta.report.runs import find_runs

Make = Callable[..., Any]


def draw(root: Path, protocol: Protocol = "transductive") -> dict[str, Figure]:
    figures = draw_all(build_rows(find_runs([root])[0], {})[0], protocol)
    for figure in figures.values():
        figure.draw_without_rendering()  # warnings are errors
    return figures


def labels(axes: Axes) -> list[str]:
    """Names at curves and points; there is no legend."""
    assert axes.get_legend() is None
    return [text.get_text() for text in axes.texts if text.get_text()]


def bands(axes: Axes) -> list[Any]:
    return [band.get_paths()[0].get_extents() for band in axes.collections if isinstance(band, PolyCollection)]


def points(axes: Axes, line: int = 0) -> np.ndarray:
    return np.asarray(axes.lines[line].get_xydata())


def sgd(lr: float) -> dict[str, Any]:
    return {"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": lr}}


def test_learning_curves_are_means_over_seeds_with_a_band(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9])], seed=0, validation={250: 0.4, 500: 0.6, 750: 0.7})
    make_run("a", [make_entry([0.9])], seed=1, validation={250: 0.5, 500: 0.7, 750: 0.8, 900: 0.9})
    make_run("b", [make_entry([0.9])])  # was not validated
    (axes,) = draw(tmp_path)["learning_curves.png"].axes
    assert labels(axes) == ["MAML, a"]
    np.testing.assert_allclose(points(axes), [[250, 45], [500, 65], [750, 75]])  # where both seeds were validated
    (extent,) = bands(axes)
    assert (extent.y0, extent.y1) == (0, 100)  # an interval of 45 ± 63.5 within what is possible
    assert axes.get_ylim()[0] < 0
    assert axes.get_ylim()[1] > 100
    (axes,) = draw(tmp_path, "non-transductive")["learning_curves.png"].axes
    np.testing.assert_allclose(
        points(axes), [[250, 45 / 4], [500, 65 / 4], [750, 75 / 4]]
    )  # after the last inner step, 10
    assert "non-transductive" in axes.get_ylabel()


def test_no_validation_no_learning_curves(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.2, 0.9], minutes=None)])
    assert draw(tmp_path).keys() == {"adaptation.png"}


def test_adaptation_shows_both_protocols_side_by_side(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.2, 0.8, 0.9], 0.05, nontransductive=[0.2, 0.6, 0.7])])
    together, apart = draw(tmp_path)["adaptation.png"].axes
    np.testing.assert_allclose(points(together), [[0, 20], [1, 80], [2, 90]])
    np.testing.assert_allclose(points(apart), [[0, 20], [1, 60], [2, 70]])
    assert [axes.get_title(loc="left") for axes in (together, apart)] == [
        "Omniglot, 5-way 1-shot, transductive", "Omniglot, 5-way 1-shot, non-transductive",
    ]  # fmt: skip
    assert together.get_ylim() == apart.get_ylim()
    assert bands(together)[0].y1 == pytest.approx(95)
    assert labels(together) == labels(apart) == ["MAML"]


def test_many_inner_steps_leave_room_for_the_first(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.2, 0.9])])
    make_run("b", [make_entry([0.2] + [0.9] * 50, ways=20)], ways=20)
    few, _, many, _ = draw(tmp_path)["adaptation.png"].axes
    assert (few.get_xscale(), many.get_xscale()) == ("linear", "symlog")
    assert many.get_xticks().tolist() == [0, 1, 2, 5, 10, 20, 50]


def test_cost_is_one_point_a_row_over_the_logarithm_of_minutes(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run("a", [make_entry([0.9], minutes=2), make_entry([0.95], members=3, minutes=20)])
    make_run("b", [make_entry([0.8], minutes=None)])
    (axes,) = draw(tmp_path)["cost.png"].axes
    assert axes.get_xscale() == "log"
    assert labels(axes) == ["MAML, a", "MAML, ensemble of 3, a"]
    assert [container.lines[0].get_xydata().tolist() for container in axes.containers] == [
        [[2, pytest.approx(90)]],
        [[20, pytest.approx(95)]],
    ]


def test_learning_is_drawn_by_tasks_seen_where_all_runs_say_how_many_a_meta_step_takes(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run("a", [make_entry([0.9])], validation={250: 0.4, 500: 0.6, 750: 0.7}, meta_batch_size=32)
    make_run("b", [make_entry([0.9])], validation={1600: 0.4, 3200: 0.6}, meta_batch_size=5)
    (axes,) = draw(tmp_path)["learning_curves.png"].axes
    assert axes.get_xlabel() == "tasks seen"
    assert [points(axes, line)[:, 0].tolist() for line in (0, 1)] == [[8000, 16000, 24000], [8000, 16000]]
    make_run("c", [make_entry([0.9])])
    (axes,) = draw(tmp_path)["learning_curves.png"].axes
    assert axes.get_xlabel() == "meta-steps"
    assert points(axes)[:, 0].tolist() == [250, 500, 750]


def test_cost_compares_all_runs_of_a_kind_of_task(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    """However the data are split, and on however many tasks a run is tested."""
    make_run("a", [make_entry([0.9], minutes=2, meta_steps=100)], split="finn", test_tasks=600, max_steps=100)
    make_run("a", [make_entry([0.95], minutes=20, meta_steps=900)], split="finn", test_tasks=5000, max_steps=900)
    make_run("b", [make_entry([0.8])], split="nichol", algorithm="Reptile")
    (axes,) = draw(tmp_path)["cost.png"].axes
    assert labels(axes) == ["MAML, 100 meta-steps", "MAML, 900 meta-steps", "Reptile"]
    assert axes.get_title(loc="left") == "Omniglot, 5-way 1-shot"


def test_no_axes_around_a_single_point(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9])], validation={250: 0.5})
    make_run("b", [make_entry([0.9], ways=20)], ways=20, validation={250: 0.5, 500: 0.6})
    assert draw(tmp_path).keys() == set()


def test_shots_only_where_there_are_several(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9]), make_entry([0.95], shots=5)])
    make_run("b", [make_entry([0.8])])
    (axes,) = draw(tmp_path)["shots.png"].axes
    assert labels(axes) == ["MAML, a"]
    np.testing.assert_allclose(points(axes), [[1, 90], [5, 95]])
    (axes,) = draw(tmp_path, "non-transductive")["shots.png"].axes
    np.testing.assert_allclose(points(axes), [[1, 45], [5, 47.5]])


@pytest.mark.parametrize(("rates", "scale"), [((0.4, 0.01, 0.1), "log"), ((0.1, 0.5), "linear"), ((0, 1.0), "linear")])
def test_a_sweep_has_the_axis_of_its_values(
    rates: tuple[float, ...], scale: str, tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    for rate in rates:
        make_run("omniglot/a", [make_entry([0.9 + rate / 100], 0.02)], optimizer=sgd(rate))
    figures = draw(tmp_path)
    assert [name for name in figures if name.startswith("sweep")] == ["sweep_omniglot_a_model.inner.optimizer.lr.png"]
    (axes,) = figures["sweep_omniglot_a_model.inner.optimizer.lr.png"].axes
    assert (axes.get_xscale(), axes.get_xlabel()) == (scale, "model.inner.optimizer.lr")
    np.testing.assert_allclose(points(axes), [[rate, 90 + rate] for rate in sorted(rates)])
    (bar,) = axes.containers[0].lines[2][0].get_segments()[:1]
    assert bar[1, 1] - bar[0, 1] == pytest.approx(4)  # twice the half-width


def test_a_sweep_takes_means_over_seeds(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for rate in (0.1, 0.2):
        for seed in (0, 1):
            make_run("a", [make_entry([rate + seed / 10])], optimizer=sgd(rate), seed=seed)
    (axes,) = draw(tmp_path)["sweep_a_model.inner.optimizer.lr.png"].axes
    np.testing.assert_allclose(points(axes), [[0.1, 15], [0.2, 25]])


def test_words_have_a_place_each_and_other_settings_a_line_each(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    for split in ("finn", None):
        for rate in (0.1, 0.2):
            make_run("a", [make_entry([rate])], optimizer=sgd(rate), split=split)
    figures = draw(tmp_path)
    (axes,) = figures["sweep_a_data.split.png"].axes
    figures["sweep_a_data.split.png"].draw_without_rendering()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["finn", "null"]
    assert labels(axes) == ["lr=0.1", "lr=0.2"]
    (axes,) = figures["sweep_a_model.inner.optimizer.lr.png"].axes
    assert labels(axes) == ["split=finn", "split=null"]


def test_ensembles_have_no_learning_curve_and_no_sweep(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for rate in (0.1, 0.2):
        entries = [make_entry([rate]), make_entry([0.9], members=3)]
        make_run("a", entries, optimizer=sgd(rate), validation={250: rate, 500: rate})
    figures = draw(tmp_path)
    assert len(figures["learning_curves.png"].axes[0].lines) == 2
    np.testing.assert_allclose(points(figures["sweep_a_model.inner.optimizer.lr.png"].axes[0]), [[0.1, 10], [0.2, 20]])


def test_lengths_are_a_sweep(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for steps in (1500, 3000):
        make_run("a", [make_entry([steps / 10000])], max_steps=steps)
    (axes,) = draw(tmp_path)["sweep_a_trainer.max_steps.png"].axes
    np.testing.assert_allclose(points(axes), [[1500, 15], [3000, 30]])


def test_runs_that_differ_in_two_settings_make_no_sweep(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9])], optimizer=sgd(0.1), split="finn")
    make_run("a", [make_entry([0.9])], optimizer=sgd(0.2), split="nichol")
    make_run("b", [make_entry([0.9])], optimizer=sgd(0.1), split="nichol")  # another experiment
    assert draw(tmp_path).keys() == {"cost.png"}


def test_one_panel_compares_all_methods_on_a_task(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    algorithms = [
        "MAML",
        "FOMAML",
        "Reptile",
        "MAMLPlusPlus",
        "ANIL",
        "BOIL",
        "IMAML",
        "FineTuning",
        "NearestNeighbour",
    ]
    algorithms += ["MatchingNetworks", "PrototypicalNetworks", "Mine"]
    for algorithm in algorithms:
        make_run(f"x/{algorithm}", [make_entry([0.2, 0.9])], algorithm=algorithm)
    make_run("a", [make_entry([0.2, 0.9], ways=20)], ways=20, algorithm="Reptile")
    five, _, twenty, _ = draw(tmp_path)["adaptation.png"].axes
    names = labels(five)
    assert {"MAML", "MAML++", "iMAML", "prototypical networks", "Mine"} < set(names)
    assert len(set(names)) == len(algorithms)
    colours = dict(zip(names, (line.get_color() for line in five.lines), strict=True))
    assert len(set(colours.values())) == len(algorithms)
    assert twenty.lines[0].get_color() == colours["Reptile"]  # the same in every panel


def test_labels_cover_no_other(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    """Twelve methods within two points of accuracy and a minute."""
    for i, algorithm in enumerate("ABCDEFGHIJKL"):
        make_run(f"x/{algorithm}", [make_entry([0.2, 0.9 + i / 600], minutes=5 + i / 12)], algorithm=algorithm * 9)
    figures = draw(tmp_path)
    for axes in (*figures["adaptation.png"].axes, *figures["cost.png"].axes):
        boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text()]
        assert len(boxes) == 12
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)


def test_methods_of_one_name_are_told_apart(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("x/one", [make_entry([0.2, 0.9])], algorithm="MAML")
    make_run("x/two", [make_entry([0.2, 0.8])], algorithm="MAML")
    make_run("x/three", [make_entry([0.2, 0.8])], algorithm="Reptile")
    axes = draw(tmp_path)["adaptation.png"].axes[0]
    assert labels(axes) == ["MAML, one", "Reptile", "MAML, two"]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    assert axes.lines[0].get_color() == axes.lines[2].get_color()


def test_splits_of_one_data_set_have_panels_of_their_own(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for split in ("finn", "nichol"):
        make_run(f"x/{split}", [make_entry([0.2, 0.9])], split=split)
    titles = [axes.get_title(loc="left") for axes in draw(tmp_path)["adaptation.png"].axes]
    assert titles[::2] == [f"Omniglot, 5-way 1-shot, split {split}, transductive" for split in ("finn", "nichol")]


def test_losses_have_an_axis_of_their_own(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([3.0, 0.1], kind="loss")], kind="loss", validation={250: 0.5})
    make_run("b", [make_entry([0.2, 0.9])])
    figures = draw(tmp_path)
    assert [(axes.get_yscale(), axes.get_ylabel()) for axes in figures["adaptation.png"].axes[::2]] == [
        ("log", "test loss"), ("linear", "test accuracy (%)"),
    ]  # fmt: skip


def test_diverged_runs_are_drawn_without_a_warning(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for rate in (0.1, 10.0):
        make_run("a", [make_entry([math.nan, math.nan])], optimizer=sgd(rate), validation={250: math.nan})
        make_run("b", [make_entry([math.nan, math.inf], kind="loss")], optimizer=sgd(rate), kind="loss")
    make_run("c", [make_entry([0.2, 0.9])])
    make_run("d", [make_entry([0.2, math.nan])])
    assert draw(tmp_path).keys() == {"adaptation.png"}


@pytest.mark.parametrize("minutes", [(8.3, 8.4), (8.0, 16.0), (8.0, 800.0), (8.0, 8.0)])
def test_the_axis_of_cost_has_numbers(
    minutes: tuple[float, float], tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    for name, value in zip("ab", minutes, strict=True):
        make_run(name, [make_entry([0.9], minutes=value)])
    figure = draw(tmp_path)["cost.png"]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = [tick.get_loc() for tick in axes.xaxis.get_major_ticks() if tick.label1.get_text()]
    assert len([tick for tick in ticks if low <= tick <= high]) > 1
    assert high >= 4 * low * (1 - 1e-9)
