"""Rows: which runs make one, its figures and intervals, and how it compares with the published figure."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.report.published import Configuration, Published, Source
from lightning_meta.report.rows import Estimate, Row, build_rows, over_seeds
from lightning_meta.report.runs import find_runs

Make = Callable[..., Any]
MAML = "omniglot/finn_5w1s_maml"


def published(mean: float, half_width: float, transductive: bool = True, inner_steps: int = 1) -> Published:
    protocol = "transductive" if transductive else "non-transductive"
    return Published(Source("Finn", 2017, "1703.03400"), 5, 1, mean, half_width, protocol, inner_steps)


def known(name: str, figure: Published | None) -> dict[str, Configuration]:
    return {name: Configuration(name, "MAML", None, 60000, True, figure, None)}


def rows_of(root: Path, figure: Published | None = None) -> list[Row]:
    runs, notes = find_runs([root])
    assert notes == []
    return build_rows(runs, known(MAML, figure) if figure else {})[0]


def test_students_interval_over_seeds() -> None:
    """90, 92, 94: deviation 2, quantile 4.303 for two degrees of freedom, over the root of 3."""
    mean, half_width = over_seeds([90.0, 92.0, 94.0])
    assert mean == pytest.approx(92)
    assert half_width == pytest.approx(4.303 * 2 / math.sqrt(3))
    assert over_seeds([90.0, 91.0]).half_width == pytest.approx(12.706 * 0.5)  # deviation .7071 over the root of 2
    assert over_seeds([0.0, 1.0] * 20).half_width == pytest.approx(2.0227 * math.sqrt(10 / 39 / 40), rel=1e-4)


def test_an_interval_is_never_less_than_the_tasks_allow() -> None:
    """Seeds that agree by chance: the mean of two independent figures with intervals of 3 and 4."""
    assert over_seeds([90.0, 90.0], [3.0, 4.0]) == (90, pytest.approx(2.5))
    assert over_seeds([90.0, 91.0], [3.0, 4.0]).half_width == pytest.approx(12.706 * 0.5)
    assert over_seeds([90.0], [3.0]) == (90, 3)
    assert math.isnan(over_seeds([90.0]).half_width)


def test_one_seed_has_the_interval_over_tasks(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run(MAML, [make_entry([0.2, 0.9], 0.01, nontransductive=[0.2, 0.8])])
    (row,) = rows_of(tmp_path)
    assert row.figure("transductive") == pytest.approx((90, 1))
    assert row.figure("non-transductive") == pytest.approx((80, 1))
    assert row.curve("transductive") == {0: pytest.approx((20, 1)), 1: pytest.approx((90, 1))}
    assert (row.task, row.meta_steps) == ("5-way 1-shot", "1,500")


def test_seeds_that_were_scored_after_other_steps_share_some(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    """As runs of an older version, which scored every step, beside later ones."""
    every, some = make_entry([0.2, 0.5, 0.7, 0.9]), make_entry([0.2, 0.7, 0.9], measured="later", seed=1)
    for metric in some["metrics"].values():
        metric["steps"] = [0, 1, 3]
    make_run(MAML, [every])
    make_run(MAML, [some], seed=1)
    (row,) = rows_of(tmp_path)
    assert {step: estimate.mean for step, estimate in row.curve("transductive").items()} == pytest.approx(
        {0: 20, 1: 60, 3: 90}
    )
    assert (row.inner_step, row.figure("transductive").mean) == (3, pytest.approx(90))


@pytest.mark.parametrize(("stated", "counts"), [(3, 3), (4, 3), (7, 7), (9, 7), (0, 0)])
def test_a_source_s_inner_step_that_was_not_scored_is_the_last_before_it(
    stated: int, counts: int, tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    by_shots = [make_entry([0.2, 0.5, 0.8], shots=shots) for shots in (1, 5)]
    for entry, steps in zip(by_shots, ([0, 3, 7], [0, 2, 7]), strict=True):
        for metric in entry["metrics"].values():
            metric["steps"] = steps
    make_run(MAML, by_shots)
    row = next(row for row in rows_of(tmp_path, published(98.7, 0.4, inner_steps=stated)) if row.main)
    assert row.inner_step == counts
    figures = {shots: estimate.mean for shots, estimate in row.by_shots("transductive").items()}
    assert figures[1] == row.figure("transductive").mean == pytest.approx({0: 20, 3: 50, 7: 80}[counts])
    assert figures[5] == pytest.approx({0: 20, 3: 50, 7: 80}[counts])


def test_seeds_make_one_row(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for seed, value in ((1, 0.92), (0, 0.90), (2, 0.94)):
        make_run(MAML, [make_entry([0.2, value], minutes=8.0 + seed)], seed=seed)
    (row,) = rows_of(tmp_path)
    assert [run.seed for run in row.runs] == [0, 1, 2]
    assert row.figure("transductive") == pytest.approx((92, 4.303 * 2 / math.sqrt(3)))
    assert row.minutes == pytest.approx(9)


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    later = make_run(MAML, [make_entry([0.95], measured="2026-12-01")])
    earlier = make_run(MAML, [make_entry([0.90], measured="2026-11-01")])
    rows, (note,) = build_rows(find_runs([tmp_path])[0], {})
    assert [run.folder for run in rows[0].runs] == [later]
    assert str(earlier) in note


def test_of_a_seed_that_was_run_twice_the_test_on_more_tasks_counts(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    many = make_entry([0.90], measured="2026-11-01")
    for metric in many["metrics"].values():
        metric["tasks"] = 10_000
    kept = make_run(MAML, [many], test_tasks=10_000)
    make_run(MAML, [make_entry([0.95], measured="2026-12-01")], test_tasks=600)
    (row,) = rows_of(tmp_path)
    assert [run.folder for run in row.runs] == [kept]


def test_lengths_settings_and_ensembles_have_rows_of_their_own(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run("a", [make_entry([0.90]), make_entry([0.93], members=5)])
    make_run("a", [make_entry([0.95], meta_steps=3000)], max_steps=3000)
    make_run("a", [make_entry([0.85])], optimizer={"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": 0.1}})
    names = [(row.name, row.meta_steps, row.entries[0].metrics["query_accuracy"].mean[0]) for row in rows_of(tmp_path)]
    assert names == [
        ("a, model.inner.optimizer.lr=0.1", "1,500", 0.85),
        ("a, model.inner.optimizer.lr=0.4", "1,500", 0.90),
        ("a, model.inner.optimizer.lr=0.4, ensemble of 5", "1,500", 0.93),
        ("a, model.inner.optimizer.lr=0.4", "3,000", 0.95),
    ]


@pytest.mark.parametrize(
    ("ours", "figure", "difference", "verdict"),
    [
        (0.979, published(98.7, 0.4), -0.8, "inside"),  # 97.9 ± .5 ends at 98.4, the published one begins at 98.3
        (0.977, published(98.7, 0.4), -1.0, "below"),
        (0.999, published(98.7, 0.4), 1.2, "above"),
        (0.979, published(49.0, 0.4, transductive=False), -0.05, "inside"),  # half of it, one query at a time
    ],
)
def test_verdict_is_whether_the_intervals_overlap(
    ours: float, figure: Published, difference: float, verdict: str, tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run(MAML, [make_entry([0.2, ours], 0.005)])
    (row,) = rows_of(tmp_path, figure)
    assert row.difference() == pytest.approx(difference)
    assert row.verdict() == verdict
    assert row.meta_steps == "1,500 of 60,000"


def test_the_sources_inner_step_counts_where_it_was_evaluated(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run(MAML, [make_entry([0.2, 0.7, 0.8, 0.9])])
    steps = [None, published(98, 1, inner_steps=2), published(98, 1, inner_steps=50)]
    rows = [rows_of(tmp_path, figure)[0] for figure in steps]
    assert [row.inner_step for row in rows] == [3, 2, 3]
    assert [row.figure("transductive") for row in rows] == [pytest.approx((value, 1)) for value in (90, 80, 90)]


def test_an_experiment_without_a_source_has_no_verdict(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("mine", [make_entry([0.9])])
    (row,) = rows_of(tmp_path, published(98, 1))
    assert (row.published, row.difference(), row.verdict()) == (None, None, "")


def test_a_loss_is_not_compared_with_an_accuracy(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run(MAML, [make_entry([3.0, 0.25], kind="loss")], kind="loss")
    (row,) = rows_of(tmp_path, published(98, 1))
    assert (row.difference(), row.verdict()) == (None, "")


def test_a_regression_shows_its_loss(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    make_run("sinusoid/maml_10shot", [make_entry([3.0, 0.25], kind="loss", shots=10)], shots=10, kind="loss")
    (row,) = rows_of(tmp_path)
    assert (row.kind, row.task, row.figure("transductive")) == ("loss", "10-shot", Estimate(0.25, 0.01))


def test_diverged_tasks_are_no_figure(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    entry = make_entry([0.2, math.nan])
    entry["metrics"]["query_accuracy"]["diverged"] = [0, 3]
    make_run(MAML, [entry])
    (row,) = rows_of(tmp_path, published(98, 1))
    assert (row.verdict(), row.diverged("transductive"), row.diverged("non-transductive")) == ("diverged", 3, 0)


def test_shots_at_test_are_those_of_the_same_checkpoint(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for seed in (0, 1):
        others = [
            make_entry([0.2, 0.95 + seed / 100], shots=5),
            make_entry([0.2, 0.5], shots=10, checkpoint="last.ckpt"),
        ]
        make_run(MAML, [make_entry([0.2, 0.9]), *others, make_entry([0.2, 0.6], shots=15, members=5)], seed=seed)
    row = next(row for row in rows_of(tmp_path) if row.main)
    assert row.by_shots("transductive") == {
        1: pytest.approx((90, math.sqrt(0.5))),
        5: pytest.approx((95.5, 12.706 * 0.5)),
    }


def test_a_row_without_a_published_figure_says_the_source_s_length(make_run: Make, make_entry: Make) -> None:
    make_run("a", [make_entry([0.9])])
    make_run("b", [make_entry([0.9])])
    runs, _ = find_runs([make_run("c", [make_entry([0.9])]).parents[1]])
    rows, _ = build_rows(runs, known("a", None))
    assert [row.meta_steps for row in rows] == ["1,500 of 60,000", "1,500", "1,500"]


@pytest.mark.parametrize("other", [{"shots": 5}, {"ways": 20}])
def test_other_tasks_than_the_source_s_are_not_compared_with_its_figure(
    other: dict[str, int], tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run(MAML, [make_entry([0.2, 0.987], **other)], **other)
    (row,) = rows_of(tmp_path, published(98.7, 0.4))
    assert (row.published, row.verdict()) == (None, "")
    assert row.meta_steps == "1,500 of 60,000"


def test_how_often_a_run_is_validated_and_a_setting_that_was_not_yet_there_name_no_row(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    make_run(MAML, [make_entry([0.9], meta_steps=100)], max_steps=100)
    make_run(MAML, [make_entry([0.95], meta_steps=900)], max_steps=900, train_ways=None)
    for path, interval in zip(sorted(tmp_path.rglob("config.yaml")), (25, 300), strict=True):
        path.write_text(path.read_text().replace("trainer:\n", f"trainer:\n  val_check_interval: {interval}\n"))
    assert [(row.setting, row.first.meta_steps) for row in rows_of(tmp_path)] == [("", 100), ("", 900)]
