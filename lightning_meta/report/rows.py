"""What the table and the figures show: runs that differ in their seed alone, as one row."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lightning_meta.intervals import Bounds, near_the_edge, student_975
from lightning_meta.report.methods import algorithm_name
from lightning_meta.report.published import Configuration, Protocol, Published
from lightning_meta.report.runs import Run, Variant
from lightning_meta.report.settings import INTERVAL, LENGTH, describe, identity, monitored, varying
from lightning_meta.results_file import Evaluation, Metric


class Estimate(NamedTuple):
    """A mean with the half-width of its 95% interval: accuracy in %, or a loss."""

    mean: float
    half_width: float


def over_seeds(values: Sequence[float], half_widths: Sequence[float] = ()) -> Estimate:
    """Mean over seeds, with its 95% interval.

    Of several seeds that is Student's t interval over their figures, which holds the spread of training and of the
    tasks (each seed draws its own), but never less than the tasks alone allow: two seeds may agree by chance. Of one
    seed it is the interval over its tasks.

    Args:
        values: a figure for each seed.
        half_widths: those of their intervals over tasks, where they are known.

    >>> over_seeds([90.0, 92.0, 94.0], [1.0, 1.0, 1.0])
    Estimate(mean=92.0, half_width=4.968676...)
    """
    mean = statistics.fmean(values)
    of_tasks = math.sqrt(sum(half_width**2 for half_width in half_widths)) / len(values) if half_widths else math.nan
    if len(values) == 1 or not math.isfinite(mean):
        return Estimate(mean, of_tasks)
    of_seeds = student_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, max(of_seeds, of_tasks) if half_widths else of_seeds)


@dataclass(frozen=True)
class Row:
    """Runs of one experiment with the same settings, one a seed, trained for the same number of meta-steps."""

    runs: list[Run]  # by seed
    entries: list[Evaluation]  # the test of each
    setting: str  # what tells it from others of the experiment
    known: Configuration | None  # of the experiment, where it is a shipped one
    variant: Variant  # of the tests
    main: bool  # whether the test stands for its runs, and is not a further one of them

    @property
    def published(self) -> Published | None:
        """The source's figure, where it has an interval and is of the same data, ways and shots."""
        figure = self.known.published if self.known and not self.variant.data else None
        alike = figure and figure.comparable and (figure.ways, figure.shots) == (self.ways, self.shots)
        return figure if alike else None

    @property
    def full_meta_steps(self) -> int | None:
        """Meta-steps of a whole run, where they are known."""
        return self.known.meta_steps if self.known else None

    @property
    def tasks_a_step(self) -> int | None:
        """Training tasks of a meta-step, where the settings say it."""
        count = self.first.settings.get("data.meta_batch_size")
        batches = self.first.settings.get("trainer.accumulate_grad_batches", 1)
        return count * batches if isinstance(count, int) and isinstance(batches, int) else None

    @property
    def first(self) -> Run:
        """One of the runs, for what they have in common."""
        return self.runs[0]

    @property
    def data(self) -> str:
        """Of the tests."""
        return self.variant.data or self.first.data

    @property
    def ways(self) -> int | None:
        """Of the tests."""
        return self.variant.ways or self.first.ways

    @property
    def shots(self) -> int | None:
        """Of the tests."""
        return self.variant.shots or self.first.shots

    @property
    def untrained(self) -> bool:
        """Whether the network was tested as it was made."""
        return self.variant.checkpoint == "untrained"

    @property
    def checkpoint(self) -> str:
        """Which weights were tested, and by what validation they were chosen."""
        kind = self.variant.checkpoint
        if kind != "best":
            return {"untrained": "none: untrained", "": "none: as in memory"}.get(kind, kind)
        monitor = self.first.settings.get("checkpoint.monitor")
        several = f" {self.members}" if self.members > 1 else ""
        return f"best{several} by {monitored(monitor)}" if monitor else f"best{several}"

    @property
    def members(self) -> int:
        """Checkpoints whose outputs were averaged."""
        return self.entries[0].members

    @property
    def name(self) -> str:
        """The experiment, and what tells this row from others of it."""
        ensemble = f"ensemble of {self.members}" if self.members > 1 else ""
        return ", ".join(filter(None, (self.first.experiment, self.setting, ensemble)))

    @property
    def method(self) -> str:
        """The method, as figures name it."""
        return self.known.method if self.known else algorithm_name(self.first.algorithm)

    @property
    def meta_steps(self) -> str:
        """Meta-steps done, and those of a whole run where they are known."""
        done = f"{self.first.meta_steps:,}"
        return f"{done} of {self.full_meta_steps:,}" if self.full_meta_steps else done

    @property
    def kind(self) -> str:
        """What is measured, for a classification or a regression."""
        return "accuracy" if all("query_accuracy" in entry.metrics for entry in self.entries) else "loss"

    @property
    def scale(self) -> float:
        """Accuracies are shown in %."""
        return 100.0 if self.kind == "accuracy" else 1.0

    @property
    def task(self) -> str:
        """Ways and shots."""
        ways = f"{self.ways}-way " if self.ways and self.kind == "accuracy" else ""
        return f"{ways}{self.shots}-shot" if self.shots else ways.strip()

    @property
    def minutes(self) -> float | None:
        """Of training, the mean over seeds."""
        known = [entry.minutes for entry in self.entries if entry.minutes is not None]
        return statistics.fmean(known) if known else None

    @property
    def inner_step(self) -> int:
        """The inner step that counts: the source's, or the last that was scored before it; or the last of all."""
        scored = _common_steps([entry.metrics[f"query_{self.kind}"] for entry in self.entries])
        stated = self.published.inner_steps if self.published else None
        return scored[-1] if stated is None or self.variant.steps is not None else _as_far_as(stated, scored)

    def metric(self, protocol: Protocol) -> str:
        """The name of the metric in ``results.json``."""
        return f"query_{self.kind}" if protocol == "transductive" else f"query_nontransductive_{self.kind}"

    def curve(self, protocol: Protocol) -> dict[int, Estimate]:
        """The figure by inner steps; empty where it was not measured."""
        return self._curve(self.entries, protocol)

    def figure(self, protocol: Protocol) -> Estimate | None:
        """The figure after the inner step that counts."""
        curve = self.curve(protocol)
        return curve[self.inner_step] if curve else None

    def bounds(self, protocol: Protocol) -> Bounds | None:
        """Wilson's interval of the figure of one seed, so near to 0 or 100% that the normal one does not hold."""
        figure = self.figure(protocol)
        if figure is None or self.kind != "accuracy" or len(self.entries) > 1:
            return None
        tasks = self.entries[0].metrics[self.metric(protocol)].tasks
        bounds = near_the_edge(figure.mean / self.scale, figure.half_width / self.scale, tasks)
        return Bounds(*(self.scale * bound for bound in bounds)) if bounds else None

    def by_shots(self, protocol: Protocol) -> dict[int, Estimate]:
        """The figure by shots at test, where the same checkpoints were tested with several."""
        entries: dict[int, list[Evaluation]] = defaultdict(list)
        if self.main:
            for run in self.runs:
                for shots, entry in run.by_shots().items():
                    entries[shots].append(entry)
        curves = {shots: self._curve(entries[shots], protocol) for shots in sorted(entries)}
        return {shots: curve[_as_far_as(self.inner_step, curve)] for shots, curve in curves.items() if curve}

    def diverged(self, protocol: Protocol) -> int:
        """Tasks whose figure is not finite at the inner step that counts."""
        found = [
            entry.metrics[self.metric(protocol)] for entry in self.entries if self.metric(protocol) in entry.metrics
        ]
        return sum(metric.diverged[metric.steps.index(self.inner_step)] for metric in found)

    def difference(self) -> float | None:
        """Ours less the published figure, each under the protocol of the source."""
        ours = self._compared()
        return ours.mean - self.published.mean if ours and self.published else None

    def verdict(self) -> str:
        """Whether our 95% interval and the published one overlap (``inside``), or on which side ours lies."""
        ours, difference = self._compared(), self.difference()
        if ours is None or difference is None or self.published is None:
            return ""
        if math.isnan(difference):
            return "diverged"
        if abs(difference) <= ours.half_width + (self.published.half_width or 0.0):
            return "inside"
        return "below" if difference < 0 else "above"

    def _compared(self) -> Estimate | None:
        if self.published is None or self.published.protocol is None or self.kind == "loss":
            return None
        return self.figure(self.published.protocol)

    def _curve(self, entries: Sequence[Evaluation], protocol: Protocol) -> dict[int, Estimate]:
        metrics = [entry.metrics[self.metric(protocol)] for entry in entries if self.metric(protocol) in entry.metrics]
        curve = {}
        for step in _common_steps(metrics):
            places = [metric.steps.index(step) for metric in metrics]
            curve[step] = over_seeds(
                [metric.mean[place] * self.scale for metric, place in zip(metrics, places, strict=True)],
                [metric.half_width[place] * self.scale for metric, place in zip(metrics, places, strict=True)],
            )
        return curve


def _common_steps(metrics: Sequence[Metric]) -> list[int]:
    """Inner steps after which all were scored."""
    return sorted(set.intersection(*(set(metric.steps) for metric in metrics))) if metrics else []


def _as_far_as(step: int, scored: Iterable[int]) -> int:
    """The last inner step that was scored up to this one."""
    return max(one for one in scored if one <= step)  # of which 0 is always one


def build_rows(runs: Iterable[Run], known: Mapping[str, Configuration]) -> tuple[list[Row], list[str]]:
    """All rows in the order of the table, and a line for each run whose seed was run again.

    Args:
        runs: what was found.
        known: the shipped configurations by the name of their experiment.
    """
    experiments: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        experiments[run.experiment].append(run)
    rows: list[Row] = []
    notes: list[str] = []
    for experiment, members in experiments.items():
        names = [name for name in varying([run.settings for run in members]) if name not in (LENGTH, INTERVAL)]
        groups: dict[tuple[int, Hashable, Variant, bool], list[tuple[Run, Evaluation]]] = defaultdict(list)
        for run in members:
            main = run.main_entry()
            for variant, entry in run.tests().items():
                key = run.meta_steps, identity(run.settings, without=LENGTH), variant, entry is main
                groups[key].append((run, entry))
        for (_, _, variant, is_main), group in groups.items():
            kept = _one_of_each_seed(group, notes)
            setting = describe(kept[0][0].settings, names)
            own_runs, entries = [run for run, _ in kept], [entry for _, entry in kept]
            rows.append(Row(own_runs, entries, setting, known.get(experiment), variant, is_main))
    return sorted(rows, key=_place), notes


def _one_of_each_seed(group: list[tuple[Run, Evaluation]], notes: list[str]) -> list[tuple[Run, Evaluation]]:
    """A seed that was run twice is not two seeds: what was measured on most tasks counts, and then last."""
    kept: dict[int | None, tuple[Run, Evaluation]] = {}
    for run, entry in sorted(group, key=lambda pair: (pair[1].metrics["query_loss"].tasks, pair[1].measured)):
        if run.seed in kept:
            notes.append(f"note: {run.folder} stands for {kept[run.seed][0].folder}, another run of the same seed")
        kept[run.seed] = run, entry
    return [kept[seed] for seed in sorted(kept, key=lambda seed: -1 if seed is None else seed)]


def _place(row: Row) -> tuple[str | int, ...]:
    run, further = row.first, [str(value) for value in row.variant]
    place = row.data, row.ways or 0, row.shots or 0, run.experiment, row.setting, run.meta_steps, row.members
    return *place, not row.main, *further
