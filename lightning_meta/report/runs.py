"""Runs on disk: ``config.yaml``, ``metrics.csv`` and ``checkpoints/results.json`` of each."""

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lightning_meta import results_file
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.settings import Settings, flatten
from lightning_meta.results_file import Evaluation


@dataclass(frozen=True)
class Run:
    """One run: its settings, its validation and its test results."""

    folder: Path
    experiment: str
    settings: Settings
    algorithm: str
    data: str
    ways: int | None
    shots: int | None
    seed: int | None
    entries: list[Evaluation]  # of the test
    validation: dict[str, dict[int, float]]  # column of metrics.csv -> meta-steps -> value
    meta_steps: int

    def main_entry(self) -> Evaluation | None:
        """The test that stands for the run: one checkpoint, with the shots of ``config.yaml``.

        The checkpoint is the best by its validation; else that of the end of the training; else the last; else any. Of
        several tests of it, that on the run's own seed with the most tasks, and then the last measured.
        """
        candidates = [entry for entry in self.entries if entry.members == 1 and self._has_shots(entry)]
        return max(candidates, key=self._weight, default=None)

    def _weight(self, entry: Evaluation) -> tuple[int, float, bool, int, str]:
        return *self._rank(entry), entry.seed == self.seed, entry.metrics["query_loss"].tasks, entry.measured

    def _has_shots(self, entry: Evaluation) -> bool:
        return self.shots is None or entry.shots in (None, self.shots)

    def _rank(self, entry: Evaluation) -> tuple[int, float]:
        name = entry.checkpoint or ""
        ranks = {"best": 4, "end": 3, "last": 2}
        kind = next((rank for start, rank in ranks.items() if name.startswith(start)), 1 if name else 0)
        monitor = str(self.settings.get("checkpoint.monitor"))
        step = re.search(r"step=(\d+)", name)
        value = self.validation.get(monitor, {}).get(int(step[1])) if step else None
        if value is None:
            return kind, -math.inf
        return kind, -value if self.settings.get("checkpoint.mode") == "min" else value

    def ensembles(self) -> dict[int, Evaluation]:
        """The test of each ensemble with the shots of ``config.yaml``, by the number of its members."""
        fitting = (entry for entry in self.entries if entry.members > 1 and self._has_shots(entry))
        return {entry.members: entry for entry in sorted(fitting, key=self._weight)}

    def by_shots(self) -> dict[int, Evaluation]:
        """The tests of the main entry's checkpoint, by their shots."""
        main = self.main_entry()
        if main is None:
            return {}
        fitting = [entry for entry in self.entries if (entry.checkpoint, entry.members) == (main.checkpoint, 1)]
        fitting.sort(key=self._weight)
        return {entry.shots: entry for entry in fitting if entry.shots is not None}


def find_runs(roots: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """All runs with test results below these folders, and a line for whatever was passed over.

    Raises:
        MetaLearningError: a folder that is not there.
    """
    folders: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise MetaLearningError(f"RUNS names {root}, but there is no such folder: name folders that hold runs")
        folders.update({path.parent.resolve(): path.parent for path in sorted(root.rglob("config.yaml"))})
    runs, notes = [], []
    for folder in folders.values():
        try:
            run, remarks = read_run(folder)
            found = by_experiment(run)
        except MetaLearningError as error:
            notes.append(f"warning: skipped a damaged run: {error}")
            continue
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
            notes.append(f"warning: skipped a damaged run: {folder} holds what no run writes ({error!r})")
            continue
        notes += remarks
        runs += found
        if not found:
            notes.append(f"note: skipped {folder}: no test results (it still trains, or it tested another run)")
    return sorted(runs, key=lambda run: (run.experiment, str(run.folder))), notes


def by_experiment(run: Run) -> list[Run]:
    """The run once for each experiment that tested it: one training may serve several of a paper's rows.

    That is ``lightning-meta test`` with the configuration of another experiment and a checkpoint of this run.
    """
    experiments = dict.fromkeys(entry.experiment or run.experiment for entry in run.entries)
    runs = []
    for experiment in experiments:
        entries = [entry for entry in run.entries if (entry.experiment or run.experiment) == experiment]
        if experiment == run.experiment:
            runs.append(replace(run, entries=entries))
        else:  # its validation was on other tasks
            runs.append(replace(run, experiment=experiment, entries=entries, shots=entries[0].shots, validation={}))
    return runs


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """The run in this folder, which may have no entries yet, and remarks on what was left out.

    Raises:
        MetaLearningError: a file of the run is damaged; a damaged ``metrics.csv`` only costs the learning curve.
    """
    remarks = []
    config = read_yaml(folder / "config.yaml")
    entries: list[Evaluation] = []
    for path in (folder / "results.json", folder / "checkpoints" / "results.json"):
        entries += results_file.read(path) if path.exists() else []
    try:
        validation, logged = _read_metrics(folder / "metrics.csv")
    except MetaLearningError as error:
        remarks.append(f"warning: no learning curve: {error}")
        validation, logged = {}, 0
    model, data = (_object(config, name, folder / "config.yaml") for name in ("model", "data"))
    arguments = data.get("init_args") or {}
    seed = config.get("seed_everything")
    seeds = [entry.seed for entry in entries if entry.seed is not None]
    run = Run(
        folder=folder,
        experiment=str(config.get("experiment") or "experiment"),
        settings=flatten(config),
        algorithm=_class(model),
        data=_class(data).removesuffix("Episodes"),
        ways=_count(arguments, "ways", folder),
        shots=_count(arguments, "shots", folder),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else next(iter(seeds), None),
        entries=[entry for entry in entries if entry.split == "test"],
        validation=validation,
        meta_steps=max([logged, *(entry.meta_steps for entry in entries)]),
    )
    return run, remarks


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        MetaLearningError: it does not, or cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MetaLearningError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise MetaLearningError(f"{path} holds no settings")
    return content


def _object(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = config.get(name)
    if not isinstance(found, dict) or "class_path" not in found:
        raise MetaLearningError(f"{path} lacks the key {name}.class_path")
    return found


def _count(arguments: Mapping[str, Any], name: str, folder: Path) -> int | None:
    value = arguments.get(name)
    if value is None or isinstance(value, int):
        return value
    raise MetaLearningError(f"{folder / 'config.yaml'}: data.{name} is {value!r}, expected a whole number")


def _class(entry: Mapping[str, Any]) -> str:
    return str(entry["class_path"]).rsplit(".", 1)[-1]


def _read_metrics(path: Path) -> tuple[dict[str, dict[int, float]], int]:
    """The validation's columns, and the meta-steps of the training; its rows stand for meta-step ``step`` + 1."""
    columns: dict[str, dict[int, float]] = {}
    last = 0
    if not path.exists():
        return columns, last
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = int(row["step"]) + 1
                if row.get("train/outer_loss") or row.get("val_loss"):
                    last = max(last, step)
                for name, value in row.items():
                    if name.startswith("val") and value:
                        columns.setdefault(name, {})[step] = float(value)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise MetaLearningError(f"{path} cannot be read as Lightning's CSV: {error!r}") from error
    return columns, last
