"""The values of every single task of a test: ``tasks.json`` beside ``results.json``, for differences of two methods.

Two learners that are tested on the same tasks find the same ones hard. The interval of their difference is therefore
taken of the differences task by task, and is narrower than what two separate intervals allow. Standard library only.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_meta.bounded_files import read_text
from lightning_meta.errors import MetaLearningError
from lightning_meta.intervals import NORMAL_975

NAME = "tasks.json"
MOST_BYTES = 2**27  # of the file: some tests of 10,000 tasks and 50 inner steps


class TaskValues(NamedTuple):
    """What one evaluation measured of each of its tasks, in the order of their numbers."""

    evaluation: list[Any]  # `Evaluation.identity` of the entry of ``results.json`` that it belongs to
    tasks: str  # a digest of the tasks, the same for the same tasks alone
    metrics: dict[str, list[list[float]]]  # such as query_accuracy: (tasks, scored steps)
    steps: list[int]  # the scored steps, from 0 to the last

    def after(self, step: int, metric: str) -> list[float]:
        """The values of all tasks after an inner step; none where they were not scored there."""
        if step not in self.steps:
            return []
        place = self.steps.index(step)
        return [row[place] for row in self.metrics.get(metric, [])]


def merge(folder: Path, values: TaskValues) -> None:
    """Add the values of an evaluation to the file of a folder, in place of those of the same evaluation.

    The file is replaced in one step. One that cannot be read is replaced, too: all that it held can be measured again.
    """
    path = folder / NAME
    try:
        others = read(path) if path.exists() else []
    except MetaLearningError:
        others = []
    entries = [*(other for other in others if other.evaluation != values.evaluation), values]
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NAME}.partial"
    partial.write_text(json.dumps([entry._asdict() for entry in entries], separators=(",", ":")), encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> list[TaskValues]:
    """The values of all evaluations in a file.

    Raises:
        MetaLearningError: the file cannot be read, or holds something else.
    """
    text = read_text(path, MOST_BYTES)
    try:
        return [_values(entry) for entry in json.loads(text)]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise MetaLearningError(f"{path} is not a list of values by task: {error}") from error


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of the first values less the second over the same tasks, and the half-width of its normal 95% interval.

    Not finite where a task diverged, which is then not left out.

    >>> difference([0.8, 1.0, 0.6], [0.6, 0.6, 0.6])
    (0.2000..., 0.2263...)
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences)
    if len(differences) < 2 or not math.isfinite(mean):
        return mean, math.nan
    squares = sum((one - mean) * (one - mean) for one in differences)
    return mean, NORMAL_975 * math.sqrt(squares / (len(differences) - 1) / len(differences))


def _values(entry: dict[str, Any]) -> TaskValues:
    metrics = {str(name): [[float(value) for value in row] for row in rows] for name, rows in entry["metrics"].items()}
    shapes = {(len(rows), *{len(row) for row in rows}) for rows in metrics.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"metrics of shapes {sorted(shapes)!s:.80}")
    (_, count), *_ = shapes
    steps = [int(step) for step in entry.get("steps", range(count))]
    if len(steps) != count:
        raise ValueError(f"{count} values of a task after {len(steps)} steps")
    return TaskValues(list(entry["evaluation"]), str(entry["tasks"]), metrics, steps)
