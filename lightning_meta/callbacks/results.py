"""The results of an evaluation: a table for the person, JSON and CSV beside the checkpoint."""

import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from lightning_meta import checkpoint_file, learner_file, results_file, task_values
from lightning_meta.callbacks.learner import Learner, learner_of
from lightning_meta.episode import EpisodeSource, Split
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable
from lightning_meta.intervals import near_the_edge
from lightning_meta.metrics import Interval
from lightning_meta.results_file import Evaluation, Metric
from lightning_meta.task_values import TaskValues

SHOWN_STEPS = (0, 1, 2, 3, 4, 5, 10, 20, 30, 40, 50)


class Results(Callback):
    """Prints a table after ``validate`` and ``test``, and writes ``results.json`` and ``results.csv``.

    The files lie beside the checkpoint that was evaluated, or in the run's folder where there was none or one that
    comes with the package. They keep the evaluations of other checkpoints and other tasks; their format is that of
    `lightning_meta.results_file`. After a test `lightning_meta.task_values` keeps the scores of its single tasks there,
    too, in ``tasks.json``.

    Args:
        experiment: name of the experiment, saved with the results.
        command: the command line of the run, saved with the results.
    """

    def __init__(self, experiment: str | None = None, command: str | None = None) -> None:
        self.experiment = experiment
        self.command = command

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report ``validate``, but not the validations during a fit."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the scores of single tasks."""
        learner_of(pl_module).scores.keep_tasks(True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the test."""
        self._report(trainer, pl_module, "test")
        learner_of(pl_module).scores.keep_tasks(False)

    def _report(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        log_dir = trainer.log_dir  # a collective: every rank asks
        if not trainer.is_global_zero:
            return
        learner = learner_of(pl_module)
        checkpoint = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        evaluation = self._evaluation(trainer, learner, split, checkpoint)
        own = checkpoint is not None and not learner_file.is_pretrained(checkpoint)
        folder = checkpoint.parent if own else Path(log_dir) if log_dir else None  # type: ignore[union-attr]
        if folder is not None and not getattr(trainer, "fast_dev_run", False):
            results_file.merge(folder, evaluation)
            if (table := learner.scores.task_table) is not None:
                values = TaskValues(list(evaluation.identity), table.tasks, table.metrics, learner.scores.steps)
                task_values.merge(folder, values)
        print(_table(evaluation))  # which fails where the terminal has gone

    def _evaluation(self, trainer: Trainer, learner: Learner, split: Split, checkpoint: Path | None) -> Evaluation:
        metrics = {name: _metric(interval) for name, interval in learner.scores.intervals.items()}
        data: Any = getattr(trainer, "datamodule", None)
        known = isinstance(data, EpisodeSource)
        return Evaluation(
            experiment=self.experiment,
            checkpoint=checkpoint.name if checkpoint else None,
            members=len(learner.ensemble) or 1,
            split=split,
            data=type(data).__name__ if known else None,
            seed=data.seed if known else None,
            ways=data.ways if known else None,
            shots=data.shots_in(split) if known else None,
            queries=data.queries_in(split) if known else None,
            tasks=next(iter(metrics.values())).tasks,
            meta_steps=learner.meta_steps,
            minutes=round(_train_seconds(learner, checkpoint) / 60, 4),  # 6 ms: a short run is not 0 either
            device=_device(trainer),
            command=self.command,
            measured=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            confusion=None if learner.scores.confusion is None else learner.scores.confusion.tolist(),
            metrics=metrics,
        )


def _train_seconds(learner: Learner, checkpoint: Path | None) -> float:
    """Seconds that the whole run trained, even if its best checkpoint was saved before the end."""
    seconds = learner.train_seconds
    last = checkpoint.with_name("last.ckpt") if checkpoint else None
    if last and last.exists():
        try:
            seconds = max(seconds, checkpoint_file.read(last, mmap=True).get("train_seconds", 0.0))
        except MetaLearningError as error:  # the evaluation is worth more
            rank_zero_warn(f"{error}; the minutes are those of {checkpoint} alone")
    return seconds


def _device(trainer: Trainer) -> str:
    """What computed, such as ``cpu, 2 threads``."""
    device = trainer.strategy.root_device
    ranks = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    if device.type == "cuda":
        return ranks + torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{ranks}{device.type}, {threads} thread{'s' * (threads > 1)}"


def _metric(interval: Interval) -> Metric:
    mean, half_width, diverged = (part.tolist() for part in (interval.mean, interval.half_width, interval.diverged))
    return Metric(interval.tasks, mean, half_width, diverged, interval.steps)


def _table(evaluation: Evaluation) -> str:
    """Accuracies in percent where there are any, otherwise losses, by inner step."""
    metrics = evaluation.metrics
    kind, factor = ("accuracy", 100.0) if "query_accuracy" in metrics else ("loss", 1.0)
    columns = {
        "support": f"support_{kind}",
        "query (transductive)": f"query_{kind}",
        "query (non-transductive)": f"query_nontransductive_{kind}",
    }
    tasks = metrics[f"query_{kind}"].tasks
    unit = " in %" if kind == "accuracy" else ""
    lines = [
        f"{evaluation.split} {kind}{unit}, mean and 95% interval over {tasks} tasks"
        + (f" of {evaluation.task_queries} queries" if evaluation.task_queries else "")
        + (f", {printable(evaluation.checkpoint)}" if evaluation.checkpoint else "")
        + (f", mean of the outputs of the best {evaluation.members}" if evaluation.members > 1 else "")
        + ("" if evaluation.meta_steps else ", UNTRAINED weights (no ckpt_path)")
    ]
    steps = metrics[f"query_{kind}"].steps
    rows = [["inner steps", *columns]] + [
        [str(step), *(_cell(metrics[name], place, factor) for name in columns.values())]
        for place, step in enumerate(steps)
        if step in SHOWN_STEPS or step == steps[-1]
    ]
    width = max(24, *(len(cell) for row in rows for cell in row[1:])) + 2
    lines += [f"{row[0]:>11}" + "".join(f"{cell:>{width}}" for cell in row[1:]) for row in rows]
    if any("[" in cell for row in rows for cell in row):
        lines.append("In brackets Wilson's 95% interval, since ± is too narrow so near to 0 or 100%.")
    return "\n".join(["", *lines, ""])


def _cell(metric: Metric, place: int, factor: float) -> str:
    decimals = 2 if factor > 1 else 4
    text = f"{metric.mean[place] * factor:.{decimals}f} ± {metric.half_width[place] * factor:.{decimals}f}"
    diverged = metric.diverged[place]
    bounds = near_the_edge(metric.mean[place], metric.half_width[place], metric.tasks) if factor > 1 else None
    if bounds:
        text += f" [{bounds.low * factor:.2f}, {bounds.high * factor:.2f}]"
    return f"{text} ({diverged} diverged)" if diverged else text
