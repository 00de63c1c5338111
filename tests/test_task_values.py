"""Values of single tasks: what is written reads back, and the interval of paired differences."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from lightning_meta.errors import MetaLearningError
from lightning_meta.task_values import NAME, TaskValues, difference, merge, read


def values(name: str = "a", shift: float = 0.0) -> TaskValues:
    return TaskValues([name, None, 1], "digest", {"query_accuracy": [[0.2, 0.4 + shift], [0.2, 0.6 + shift]]}, [0, 1])


def test_what_is_written_reads_back_and_a_repeated_evaluation_replaces_the_first(tmp_path: Path) -> None:
    for entry in (values(), values("b"), values(shift=0.2)):
        merge(tmp_path / "new", entry)
    assert read(tmp_path / "new" / NAME) == [values("b"), values(shift=0.2)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]


DAMAGED: list[Any] = [
    "[{", "{}}", "1", "[1]", "[{}]", "[" * 100_000, [{"evaluation": [], "tasks": "", "metrics": {}}],
    [{"evaluation": [], "tasks": "", "metrics": {"query_loss": [[1.0], [1.0, 2.0]]}}],
    [{"evaluation": [], "tasks": "", "metrics": {"query_loss": [["a"]]}}],
    [{"evaluation": 1, "tasks": "", "metrics": {"query_loss": [[1.0]]}}],
    [{"evaluation": [], "tasks": "", "metrics": {"query_loss": [[1.0]]}, "steps": [0, 1]}],
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_and_replaced_by_the_next_test(content: Any, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(MetaLearningError, match="tasks.json is not a list of values by task"):
        read(path)
    merge(tmp_path, values())
    assert read(path) == [values()]


def test_the_interval_is_that_of_the_differences() -> None:
    first, second = [0.8, 1.0, 0.6, 0.8, 0.4], [0.6, 1.0, 0.2, 0.6, 0.4]
    mean, half_width = difference(first, second)
    paired = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert mean == pytest.approx((paired.low + paired.high) / 2)
    assert half_width * stats.t.ppf(0.975, 4) / 1.959964 == pytest.approx((paired.high - paired.low) / 2)


def test_values_that_no_test_measures_are_not_an_error() -> None:
    assert difference([1e300, -1e300], [0.0, 0.0]) == (0.0, math.inf)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_task_that_diverged_shows(bad: float) -> None:
    assert not math.isfinite(difference([bad, 0.5], [0.1, 0.2])[0])
    assert math.isnan(difference([bad, 0.5], [0.1, 0.2])[1])
