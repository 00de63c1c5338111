"""Intervals of accuracies, and how often they hold the truth."""

import csv
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from lightning_meta import intervals
from lightning_meta.intervals import NORMAL_975, Bounds, near_the_edge, of_accuracy, student_975, wilson

ROOT = Path(__file__).parents[1]


def half_width(accuracy: float, answers: int) -> float:
    """Of the normal interval of this many independent answers."""
    return NORMAL_975 * (accuracy * (1 - accuracy) / answers) ** 0.5


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/studies/interval_coverage.py"))


@pytest.mark.parametrize("freedom", [1, 5, 30, 31, 99, 10_000])
def test_students_quantile(freedom: int) -> None:
    assert student_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


@pytest.mark.parametrize(("wrong", "answers"), [(1, 50), (10, 500), (40, 500), (100, 5000)])
def test_wilsons_interval_of_independent_answers_is_scipys(wrong: int, answers: int) -> None:
    """With as many tasks as answers; scipy takes the normal quantile, and Student's is near it with many tasks."""
    accuracy = 1 - wrong / answers
    low, high = wilson(accuracy, half_width(accuracy, answers), 10**7)
    scipys = stats.binomtest(answers - wrong, answers).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=1e-6)


def test_both_ends_solve_wilsons_equation() -> None:
    """At each end the mean is 1.984 (Student's quantile) deviations of that end's accuracy away."""
    for end in wilson(0.97, half_width(0.97, 300), 100):
        assert abs(0.97 - end) == pytest.approx(1.984 * math.sqrt(end * (1 - end) / 300), rel=1e-3)


def test_the_normal_interval_stays_where_it_holds() -> None:
    enough, few = half_width(0.9, 301), half_width(0.9, 299)
    assert near_the_edge(0.9, enough, 100) is None
    assert of_accuracy(0.9, enough, 100) == Bounds(0.9 - enough, 0.9 + enough)
    assert near_the_edge(0.9, few, 100) == wilson(0.9, few, 100) == of_accuracy(0.9, few, 100)


@pytest.mark.parametrize(
    "figure",
    [
        (math.nan, math.nan, 600),
        (1.5, 0.1, 600),
        (-0.1, 0.1, 600),
        (0.9, math.inf, 600),
        (0.9, 1e300, 600),
        (0.9, 0.1, 0),
    ],
)
def test_what_is_no_accuracy_has_no_interval_of_wilson(figure: tuple[float, float, int]) -> None:
    assert near_the_edge(*figure) is None


@pytest.mark.parametrize("figure", [(1.0, 0.0, 600), (0.0, 0.0, 600), (1.0, 0.0, 1), (0.999, 1.9, 2)])
def test_bounds_are_accuracies(figure: tuple[float, float, int]) -> None:
    low, high = wilson(*figure)
    assert 0 <= low <= figure[0] <= high <= 1
    assert low < high


def test_tasks_that_are_all_equally_half_right_have_no_spread() -> None:
    """As a network's whose outputs are the same for all classes: chance in every task."""
    assert near_the_edge(0.2, 0.0, 50) is None
    assert wilson(0.2, 0.0, 50) == (0.2, 0.2)


@pytest.mark.parametrize(
    ("accuracy", "tasks", "queries", "correlation"),
    [(0.8, 100, 5, 0.0), (0.95, 100, 75, 0.1), (0.98, 100, 5, 0.05), (0.98, 600, 75, 0.05), (0.98, 10_000, 5, 0.1)],
)
def test_what_is_printed_covers_the_truth(
    study: dict[str, Any], accuracy: float, tasks: int, queries: int, correlation: float
) -> None:
    """93 to 97%, within three deviations of 2,000 simulations."""
    assert 91.5 < study["coverage"](accuracy, tasks, queries, correlation, 2000)["printed"] < 98.2


def test_the_normal_interval_fails_near_the_ceiling_and_wilsons_does_not(study: dict[str, Any]) -> None:
    found = study["coverage"](0.99, 100, 5, 0.05, 2000)
    assert found["normal"] < 89 and found["printed"] > 93
    assert found["bracketed"] == 100


def test_the_page_shows_what_the_study_wrote(study: dict[str, Any]) -> None:
    """Otherwise: python benchmarks/studies/interval_coverage.py, whose table goes into docs/studies.md."""
    rows = list(csv.DictReader(ROOT.joinpath("benchmarks/results/interval_coverage.csv").read_text().splitlines()))
    page = ROOT.joinpath("docs/studies.md").read_text(encoding="utf-8")
    assert study["page"](rows) in page
    promised = [float(row["printed"]) for row in rows if float(row["accuracy"]) <= 0.98]
    assert f"covers {min(promised)} to {max(promised)}%" in " ".join(page.split())
    assert min(promised) >= 93 and max(promised) <= 97
    assert intervals.ENOUGH_ERRORS == 30  # as the page says
