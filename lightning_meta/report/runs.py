"""Runs on disk: ``config.yaml``, ``metrics.csv`` and ``checkpoints/results.json`` of each."""

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lightning_meta import results_file
from lightning_meta.bounded_files import check_file, read_yaml
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.settings import LENGTH, TEST_TASKS, Settings, flatten
from lightning_meta.results_file import Evaluation

MOST_BYTES = 2**27  # of metrics.csv: a few hundred for every row, of which a run has thousands
MOST_LETTERS = 400  # of an error


class Variant(NamedTuple):
    """What a test was of, and how it differs from the one that the run's settings describe (None: not at all)."""

    checkpoint: str  # best, end, last, untrained, or the name of another file
    members: int
    data: str | None = None
    ways: int | None = None
    shots: int | None = None
    queries: int | None = None
    steps: int | None = None  # inner steps

    @property
    def changed(self) -> bool:
        """Whether it was on other tasks or with other inner steps than the run's own."""
        return any(value is not None for value in self[2:])


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
    queries: int | None
    seed: int | None
    entries: list[Evaluation]  # of the test
    validation: dict[str, dict[int, float]]  # column of metrics.csv -> meta-steps -> value
    meta_steps: int
    resumed: str | None = None  # name of the folder of the run that it goes on from, beside its own

    def main_entry(self) -> Evaluation | None:
        """The test that stands for the run: one checkpoint, on the tasks of ``config.yaml``.

        The checkpoint is the best by its validation; else that of the end of the training; else the last; else any. Of
        several tests of it, that with the inner steps of ``config.yaml`` on the run's own seed with the most tasks, and
        then the last measured.
        """
        own = [entry for entry in self.entries if entry.members == 1 and not self._variant(entry).changed]
        return max(own, key=self._weight, default=None)

    def tests(self) -> dict[Variant, Evaluation]:
        """One test of each kind, the heaviest; the main entry is among them."""
        found: dict[Variant, Evaluation] = {}
        main = self.main_entry()
        steps = _steps(main) if main else None
        for entry in sorted(self.entries, key=self._weight, reverse=True):
            other = _steps(entry) if steps not in (None, _steps(entry)) else None
            found.setdefault(self._variant(entry)._replace(steps=other), entry)
        return found

    def by_shots(self) -> dict[int, Evaluation]:
        """The tests of the main entry's checkpoint, by their shots."""
        main = self.main_entry()
        if main is None:
            return {}
        fitting = [entry for entry in self.entries if (entry.checkpoint, entry.members) == (main.checkpoint, 1)]
        fitting = [entry for entry in fitting if not self._variant(entry)._replace(shots=None, queries=None).changed]
        fitting.sort(key=self._weight)
        return {entry.shots: entry for entry in fitting if entry.shots is not None}

    def _variant(self, entry: Evaluation) -> Variant:
        """Without its inner steps, which are compared with those of the main entry."""
        data = entry.data.removesuffix("Episodes") if entry.data else None
        pairs = {
            "data": (data, self.data),
            "ways": (entry.ways, self.ways),
            "shots": (entry.shots, self.shots),
            "queries": (entry.queries, self.queries),
        }
        changed = {name: value for name, (value, own) in pairs.items() if None not in (value, own) and value != own}
        return Variant(_checkpoint(entry), entry.members, **changed)  # type: ignore[arg-type]

    def _weight(self, entry: Evaluation) -> tuple[int, float, bool, bool, int, str]:
        stated = self.settings.get("model.inner.evaluation_steps") or self.settings.get("model.inner.steps")
        tasks = entry.metrics["query_loss"].tasks
        return *self._rank(entry), _steps(entry) == stated, entry.seed == self.seed, tasks, entry.measured

    def _rank(self, entry: Evaluation) -> tuple[int, float]:
        kind = {"best": 4, "end": 3, "last": 2}.get(_checkpoint(entry), 1 if entry.checkpoint else 0)
        monitor = str(self.settings.get("checkpoint.monitor"))
        step = re.search(r"step=(\d+)", entry.checkpoint or "")
        value = self.validation.get(monitor, {}).get(int(step[1])) if step else None
        if value is None:
            return kind, -math.inf
        return kind, -value if self.settings.get("checkpoint.mode") == "min" else value


def _checkpoint(entry: Evaluation) -> str:
    """What kind of checkpoint was tested, by the names that runs give them."""
    name = (entry.checkpoint or "").removesuffix(".ckpt")
    kinds = (kind for kind in ("best", "end", "last") if name.startswith(kind))
    return next(kinds, name) if entry.meta_steps else "untrained"


def _steps(entry: Evaluation) -> int:
    """Inner steps of a test."""
    return entry.inner_steps


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
    runs: list[Run] = []
    notes: list[str] = []
    read: dict[Path, Run] = {}
    for folder in folders.values():
        try:
            read[folder], remarks = read_run(folder)
            notes += remarks
        except MetaLearningError as error:
            notes.append(f"warning: skipped a damaged run: {_short(error)}")
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
            notes.append(f"warning: skipped a damaged run: {folder} holds what no run writes ({_short(error)})")
    for folder, run in read.items():
        found = by_experiment(replace(run, validation=_whole_validation(run, read)))
        runs += found
        if not found:
            notes.append(f"note: skipped {folder}: no test results (it still trains, or it tested another run)")
    return sorted(runs, key=lambda run: (run.experiment, str(run.folder))), notes


def _short(error: Exception) -> str:
    """What an error says, which may hold all that a file does."""
    text = " ".join(str(error).split())
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _whole_validation(run: Run, others: Mapping[Path, Run]) -> dict[str, dict[int, float]]:
    """The validation of a run, and where it resumed another of its experiment, what that one saw before."""
    columns, seen = run.validation, {run.folder}
    while run.resumed and (folder := run.folder.with_name(run.resumed)) in others.keys() - seen:
        seen.add(folder)
        run = others[folder]
        starts = {name: min(values) for name, values in columns.items()}
        columns = {
            name: {step: value for step, value in before.items() if step < starts.get(name, math.inf)}
            | columns.get(name, {})
            for name, before in run.validation.items()
        } | {name: values for name, values in columns.items() if name not in run.validation}
    return columns


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
            first = entries[0]
            data = first.data.removesuffix("Episodes") if first.data else run.data
            tasks: dict[str, Any] = {"data": data, "ways": first.ways, "shots": first.shots, "queries": None}
            runs.append(replace(run, experiment=experiment, entries=entries, validation={}, **tasks))
    return runs


def read_run(folder: Path) -> tuple[Run, list[str]]:
    """The run in this folder, which may have no entries yet, and remarks on what was left out.

    Raises:
        MetaLearningError: a file of the run is damaged; a damaged ``metrics.csv`` only costs the learning curve.
    """
    remarks = []
    config = read_config(folder / "config.yaml")
    entries: list[Evaluation] = []
    for place in (folder, folder / "checkpoints"):
        found = results_file.read(place / results_file.NAME) if (place / results_file.NAME).exists() else []
        # Beside the configuration lie tests of learners that come with the package, which this run has not trained.
        entries += [one for one in found if place != folder or not str(one.checkpoint).endswith(".safetensors")]
    try:
        validation, logged = _read_metrics(folder / "metrics.csv")
    except MetaLearningError as error:
        remarks.append(f"warning: no learning curve: {error}")
        validation, logged = {}, 0
    model, data = (_object(config, name, folder / "config.yaml") for name in ("model", "data"))
    arguments = data.get("init_args") or {}
    seed = config.get("seed_everything")
    seeds = [entry.seed for entry in entries if entry.seed is not None]
    settings = flatten(config)
    settings.pop(TEST_TASKS, None)
    planned = settings.get(LENGTH)
    if isinstance(planned, int) and planned > 0:
        logged = min(logged, planned)  # Lightning counted one more after some resumptions
    run = Run(
        folder=folder,
        experiment=str(config.get("experiment") or "experiment"),
        settings=settings,
        algorithm=_class(model),
        data=_class(data).removesuffix("Episodes"),
        ways=_count(arguments, "ways", folder),
        shots=_count(arguments, "shots", folder),
        queries=_count(arguments, "queries", folder),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else next(iter(seeds), None),
        entries=[entry for entry in entries if entry.split == "test"],
        validation=validation,
        meta_steps=max([logged, *(entry.meta_steps for entry in entries)]),
        resumed=_resumed(config.get("ckpt_path"), folder),
    )
    return run, remarks


def _resumed(checkpoint: object, folder: Path) -> str | None:
    """The version whose checkpoint, below its ``checkpoints``, a run began with, where it is of the same experiment."""
    parts = PurePath(checkpoint).parts if isinstance(checkpoint, str) else ()
    alike = len(parts) > 3 and parts[-2] == "checkpoints" and parts[-4] == folder.resolve().parent.name
    return parts[-3] if alike and parts[-3] != ".." else None


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        MetaLearningError: the file holds none, or cannot be read.
    """
    content = read_yaml(path)
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
    check_file(path, MOST_BYTES)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if None in row.values():  # the run was killed as it wrote the row
                    continue
                step = int(row["step"]) + 1
                if not 0 <= step < 2**53:
                    raise ValueError("a step that is not a count")
                if row.get("train/outer_loss") or row.get("val_loss"):
                    last = max(last, step)
                for name, value in row.items():
                    if name.startswith("val") and value:
                        columns.setdefault(name, {})[step] = float(value)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise MetaLearningError(f"{path} cannot be read as Lightning's CSV: {_short(error)}") from error
    return columns, last
