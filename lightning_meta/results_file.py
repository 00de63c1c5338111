"""The one format of results: ``results.json`` beside a checkpoint, and the same as ``results.csv`` for spreadsheets.

`Results` writes it after an evaluation and the report reads it; neither knows its keys. Standard library only, so that
a report starts without PyTorch.
"""

import csv
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lightning_meta.bounded_files import read_text
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import cell
from lightning_meta.intervals import Bounds, of_accuracy

Value = TypeVar("Value")

NAME = "results.json"
MOST_BYTES = 2**25  # of the file: some thousands of evaluations
# Evaluations that agree in these and in the number of inner steps are the same one, measured again.
IDENTITY = ("experiment", "checkpoint", "members", "split", "data", "seed", "tasks", "ways", "shots", "queries")


class Metric(NamedTuple):
    """A value after some of the inner steps, as a mean over tasks."""

    tasks: int
    mean: list[float]  # (scored steps,)
    half_width: list[float]  # (scored steps,), of the 95% interval over tasks
    diverged: list[int]  # (scored steps,), tasks whose value was not finite
    steps: list[int]  # the scored steps, from 0 to the last


class Evaluation(NamedTuple):
    """One evaluation of a checkpoint, or of the mean of several; None stands for what a file does not say."""

    experiment: str | None
    checkpoint: str | None  # name of the file
    members: int  # of an ensemble; 1 for a single checkpoint
    split: str
    data: str | None  # class of the data module
    seed: int | None
    ways: int | None
    shots: int | None
    queries: int | None  # of a class
    tasks: int
    meta_steps: int
    minutes: float | None  # of training
    device: str | None
    command: str | None
    measured: str  # local time in ISO 8601
    confusion: list[list[int]] | None  # (ways, ways), queries of the first task: rows are classes, columns predictions
    metrics: dict[str, Metric]  # such as query_accuracy, in 0..1
    queries_per_task: int | None = None  # only in the oldest files, in place of ways and queries

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two measurements of the same evaluation."""
        return *(getattr(self, name) for name in IDENTITY), self.inner_steps + 1

    @property
    def inner_steps(self) -> int:
        """Of a task."""
        return self.metrics["query_loss"].steps[-1]

    @property
    def task_queries(self) -> int | None:
        """Queries of a task, over all of its classes."""
        return self.ways * self.queries if self.ways and self.queries else self.queries_per_task


def read(path: Path) -> list[Evaluation]:
    """All evaluations in a file.

    Raises:
        MetaLearningError: the file cannot be read, or holds something else.
    """
    text = read_text(path, MOST_BYTES)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetaLearningError(f"{path} cannot be read as JSON: {error}") from error
    try:
        if not isinstance(entries, list):
            raise TypeError(f"the top level is a {type(entries).__name__}")
        return [_evaluation(entry) for entry in entries]
    except KeyError as error:
        raise MetaLearningError(f"{path} lacks the key {error} in an entry: evaluate the checkpoint again") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise MetaLearningError(f"{path} is not a list of evaluations: {error}") from error


def merge(folder: Path, evaluation: Evaluation) -> None:
    """Add an evaluation to the files of a folder, in place of an earlier measurement of the same.

    Both files are replaced in one step each, so a reader never sees half of one. A damaged ``results.json`` is renamed
    to ``results.json.damaged`` with a warning, so that it costs neither itself nor the new evaluation.
    """
    path = folder / NAME
    others: list[Evaluation] = []
    if path.exists():
        try:
            others = read(path)
        except MetaLearningError as error:
            aside = path.with_name(f"{NAME}.damaged")
            os.replace(path, aside)
            warnings.warn(f"{error}; the file is now {aside.name}, and a new one begins", stacklevel=2)
    write(folder, [*(other for other in others if other.identity != evaluation.identity), evaluation])


def write(folder: Path, evaluations: list[Evaluation]) -> None:
    """Write ``results.json`` and ``results.csv``, in place of those in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_entry(evaluation) for evaluation in evaluations]
    partial = folder / f"{NAME}.partial"
    partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    os.replace(partial, folder / NAME)
    rows = [row for evaluation in evaluations for row in _rows(evaluation)]
    partial = folder / "results.csv.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    os.replace(partial, folder / "results.csv")


def _entry(evaluation: Evaluation) -> dict[str, Any]:
    entry = evaluation._asdict()
    if evaluation.queries_per_task is None:
        del entry["queries_per_task"]
    entry["metrics"] = {name: metric._asdict() for name, metric in evaluation.metrics.items()}
    return entry


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """One for each metric and inner step."""
    common = {name: getattr(evaluation, name) for name in (*IDENTITY, "meta_steps", "minutes", "device")}
    for name, metric in evaluation.metrics.items():
        for mean, half_width, diverged, step in zip(*metric[1:], strict=True):
            bounds = Bounds(mean - half_width, mean + half_width)
            if name.endswith("accuracy"):
                bounds = of_accuracy(mean, half_width, metric.tasks)
            own = {"metric": name, "step": step, "mean": mean, "half_width_95": half_width, "tasks": metric.tasks}
            yield common | own | {"diverged": diverged, "low_95": bounds.low, "high_95": bounds.high}


def _evaluation(entry: dict[str, Any]) -> Evaluation:
    """From JSON; keys that older files lack are optional."""
    entry["metrics"]["query_loss"]  # part of every evaluation
    metrics = {name: _metric(name, metric) for name, metric in entry["metrics"].items()}
    if len({tuple(metric.steps) for metric in metrics.values()}) > 1:
        lengths = {name: len(metric.mean) for name, metric in metrics.items()}
        raise ValueError(f"metrics of different lengths: {lengths}")
    return Evaluation(
        experiment=_maybe(str, entry.get("experiment")),
        checkpoint=_maybe(str, entry["checkpoint"]),
        members=_whole(entry.get("members", 1), least=1),
        split=str(entry["split"]),
        data=_maybe(str, entry.get("data")),
        seed=_maybe(_whole, entry.get("seed")),
        ways=_maybe(_whole, entry.get("ways")),
        shots=_maybe(_whole, entry.get("shots")),
        queries=_maybe(_whole, entry.get("queries")),
        tasks=_whole(entry.get("tasks", metrics["query_loss"].tasks)),
        meta_steps=_whole(entry["meta_steps"]),
        minutes=_maybe(_duration, entry.get("minutes")),
        device=_maybe(str, entry.get("device")),
        command=_maybe(str, entry.get("command")),
        measured=str(entry.get("measured", "")),
        confusion=entry.get("confusion"),
        metrics=metrics,
        queries_per_task=_maybe(_whole, entry.get("queries_per_task")),
    )


def _maybe(kind: Callable[[Any], Value], value: Any) -> Value | None:
    return None if value is None else kind(value)


def _whole(value: Any, least: int = 0) -> int:
    """A count that a float holds as well."""
    number = int(value)
    if not least <= number < 2**53:
        raise ValueError(f"{value!r:.20} is not a count")
    return number


def _duration(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r:.20} is not a duration")
    return number


def _metric(name: str, entry: dict[str, Any]) -> Metric:
    mean, half_width = ([float(value) for value in entry[key]] for key in ("mean", "half_width"))
    diverged = [int(value) for value in entry.get("diverged", [0] * len(mean))]
    if not mean or not len(mean) == len(half_width) == len(diverged):
        raise ValueError(f"{name} has {len(mean)} means, {len(half_width)} half widths, {len(diverged)} diverged")
    if name.endswith("accuracy") and any(value < 0 or value > 1 for value in mean):  # a NaN is neither
        raise ValueError(f"{name} is {mean}, expected fractions in 0..1")
    steps = [_whole(step) for step in entry.get("steps", range(len(mean)))]
    if len(steps) != len(mean) or steps[0] != 0 or steps != sorted(set(steps)):
        raise ValueError(f"{name} has {len(mean)} means after the steps {steps!s:.80}, expected rising ones from 0 on")
    return Metric(_whole(entry["tasks"]), mean, half_width, diverged, steps)
