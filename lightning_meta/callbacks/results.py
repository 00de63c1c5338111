"""The results of an evaluation: a table for the person, JSON and CSV beside the checkpoint."""

import csv
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from lightning_meta.episode import EpisodeSource, Split
from lightning_meta.metrics import Interval

SHOWN_STEPS = (0, 1, 2, 3, 4, 5, 10, 20, 30, 40, 50)
# What makes another entry, and not a new figure of the same.
KEY = ("experiment", "checkpoint", "members", "split", "data", "seed", "tasks", "ways", "shots", "queries")


class Results(Callback):
    """Prints a table after ``validate`` and ``test``, and writes ``results.json`` and ``results.csv``.

    They stand beside the checkpoint that was evaluated, or in the run's folder when there was none. One entry for each
    checkpoint and list of tasks (split, data, seed, number, ways, shots, queries): what others gave stays in the files.

    Args:
        experiment: name of the experiment, which is kept with the results.
        command: the command line that led here, likewise.
    """

    def __init__(self, experiment: str | None = None, command: str | None = None) -> None:
        self.experiment = experiment
        self.command = command

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a validation that was asked for, not those during a fit."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the test."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        log_dir = trainer.log_dir  # a collective: every rank asks
        if not trainer.is_global_zero:
            return
        intervals: dict[str, Interval] = pl_module.scores.intervals  # type: ignore[assignment]
        checkpoint = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        data: Any = getattr(trainer, "datamodule", None)
        tasks = dict.fromkeys(("data", "seed", "ways", "shots", "queries"))
        if isinstance(data, EpisodeSource):
            tasks = {"data": type(data).__name__, "seed": data.seed, "ways": data.ways}
            tasks |= {"shots": data.shots_in(split), "queries": data.queries_in(split)}
        confusion: Any = pl_module.scores.confusion
        entry = {
            "experiment": self.experiment,
            "checkpoint": checkpoint.name if checkpoint else None,
            "members": pl_module.ensemble_size,
            "split": split,
            **tasks,
            "tasks": next(iter(intervals.values())).tasks,
            "meta_steps": pl_module.meta_steps,
            "minutes": round(_train_seconds(pl_module, checkpoint) / 60, 2),
            "device": _device(trainer),
            "command": self.command,
            "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "confusion": None if confusion is None else confusion.tolist(),
            "metrics": {name: _plain(interval) for name, interval in intervals.items()},
        }
        print(_table(entry))
        folder = checkpoint.parent if checkpoint else Path(log_dir) if log_dir else None
        if folder is not None and not getattr(trainer, "fast_dev_run", False):
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, entry)


def _train_seconds(pl_module: LightningModule, checkpoint: Path | None) -> float:
    """Of the whole run, also where its best checkpoint was saved before the end."""
    seconds: Any = pl_module.train_seconds
    last = checkpoint.with_name("last.ckpt") if checkpoint else None
    if last and last.exists():
        try:
            saved = torch.load(last, weights_only=True, map_location="cpu", mmap=True)
            seconds = max(seconds, saved.get("train_seconds", 0.0))
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:  # no reason to lose the evaluation
            rank_zero_warn(f"{last} cannot be read, so the minutes are those of {checkpoint} alone: {error}")
    return float(seconds)


def _device(trainer: Trainer) -> str:
    """What computed, such as ``cpu, 2 threads``."""
    device = trainer.strategy.root_device
    ranks = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    if device.type == "cuda":
        return ranks + torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{ranks}{device.type}, {threads} thread{'s' * (threads > 1)}"


def _plain(interval: Interval) -> dict[str, Any]:
    return {
        "tasks": interval.tasks,
        "mean": interval.mean.tolist(),
        "half_width": interval.half_width.tolist(),
        "diverged": interval.diverged.tolist(),
    }


def _write(folder: Path, entry: dict[str, Any]) -> None:
    """Put ``entry`` among those that stand in the folder already."""
    path = folder / "results.json"
    entries = _read(path)
    entries = [other for other in entries if any(other.get(name) != entry[name] for name in KEY)] + [entry]
    _replace(path, json.dumps(entries, indent=1))
    rows = [row for other in entries for row in _rows(other)]
    partial = folder / "results.csv.partial"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, folder / "results.csv")


def _read(path: Path) -> list[dict[str, Any]]:
    """What stands in the file; one that is damaged is put aside, so that it costs neither itself nor the new entry."""
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text())
        if isinstance(entries, list) and all(isinstance(entry, dict) and "metrics" in entry for entry in entries):
            return entries
    except ValueError:
        pass
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    rank_zero_warn(f"{path} holds no list of results: it is now {aside.name}, and a new one begins")
    return []


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".json.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, metric in entry["metrics"].items():
        for step, (mean, half_width, diverged) in enumerate(
            zip(metric["mean"], metric["half_width"], metric["diverged"], strict=True)
        ):
            yield {
                **{name: entry.get(name) for name in (*KEY, "seed", "meta_steps", "minutes", "device")},
                "metric": name, "step": step, "mean": mean, "half_width_95": half_width, "tasks": metric["tasks"],
                "diverged": diverged,
            }  # fmt: skip


def _table(entry: dict[str, Any]) -> str:
    """Accuracies in percent where there are any, otherwise losses, by inner step."""
    metrics: dict[str, Any] = entry["metrics"]
    kind, factor = ("accuracy", 100.0) if "query_accuracy" in metrics else ("loss", 1.0)
    columns = {
        "support": f"support_{kind}",
        "query (transductive)": f"query_{kind}",
        "query (non-transductive)": f"query_nontransductive_{kind}",
    }
    tasks = metrics[f"query_{kind}"]["tasks"]
    unit = " in %" if kind == "accuracy" else ""
    lines = [
        f"{entry['split']} {kind}{unit}, mean and 95% interval over {tasks} tasks"
        + (f" of {entry['ways'] * entry['queries']} queries" if entry["queries"] else "")
        + (f", {entry['checkpoint']}" if entry["checkpoint"] else "")
        + (f", mean of the outputs of the best {entry['members']}" if entry["members"] > 1 else "")
        + ("" if entry["meta_steps"] else ", UNTRAINED weights (no ckpt_path)"),
        f"{'inner steps':>11}" + "".join(f"{title:>26}" for title in columns),
    ]
    last = len(metrics[f"query_{kind}"]["mean"]) - 1
    for step in range(last + 1):
        if step in SHOWN_STEPS or step == last:
            cells = [_cell(metrics[name], step, factor) for name in columns.values()]
            lines.append(f"{step:>11}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(["", *lines, ""])


def _cell(metric: dict[str, Any], step: int, factor: float) -> str:
    decimals = 2 if factor > 1 else 4
    text = f"{metric['mean'][step] * factor:.{decimals}f} ± {metric['half_width'][step] * factor:.{decimals}f}"
    diverged = metric["diverged"][step]
    return f"{text} ({diverged} diverged)" if diverged else text
