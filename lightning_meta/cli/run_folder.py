"""The folder of a run, ROOT/EXPERIMENT/version_K: claimed by one run alone, and found again by the run that goes on."""

import csv
import os
import re
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from lightning_meta import checkpoint_file
from lightning_meta.errors import MetaLearningError

LAST = "last.ckpt"
_VERSION = re.compile(r"version_(\d+)")


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, whose ``last.ckpt`` is of the last validation and not of the last improvement.

    A run that goes on in its own folder knows its best checkpoints again, also where the folder was moved; one that
    starts from the checkpoint of another run has none yet.
    """

    @property
    def state_key(self) -> str:
        """That of the base, by which checkpoints hold its state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best as the base does, and the last where that has not."""
        super().on_validation_end(trainer, pl_module)
        if self.save_last is True and not self._should_skip_saving_checkpoint(trainer):
            self.save_as_last(trainer)

    def save_as_last(self, trainer: Trainer) -> str:
        """Write ``last.ckpt`` now; returns its path."""
        self.last_model_path = str(Path(str(self.dirpath)) / LAST)  # part of the state that is saved
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
        return self.last_model_path

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the state the paths of this run's folder, or take it out where it is another run's."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None:
            return
        folder = Path(str(self.dirpath))
        if not trainer.ckpt_path or Path(trainer.ckpt_path).resolve().parent != folder.resolve():
            del checkpoint["callbacks"][self.state_key]
            return
        places = {path: str(folder / Path(path).name) for path in (*state["best_k_models"], state["last_model_path"])}
        scores = {places[path]: score for path, score in state["best_k_models"].items() if Path(places[path]).exists()}
        choose, worst = (max, min) if self.mode == "max" else (min, max)
        best, kth = (pick(scores, key=scores.__getitem__) if scores else "" for pick in (choose, worst))
        checkpoint["callbacks"][self.state_key] = state | {
            "dirpath": self.dirpath,
            "best_k_models": scores,
            "best_model_path": best if scores else _in(folder, state["best_model_path"]),
            "best_model_score": scores.get(best),
            "kth_best_model_path": kth,
            "kth_value": scores.get(kth, self.kth_value),
            "last_model_path": places[state["last_model_path"]] if state["last_model_path"] else "",
        }


class RunMetrics(CSVLogger):
    """Lightning's ``metrics.csv``, to which a run that goes on appends.

    Args:
        root: folder of all experiments.
        experiment: name of the experiment.
        version: number of the run.
        steps: meta-steps that the run has done; rows of later ones, which are measured again, are left out.
    """

    def __init__(self, root: str, experiment: str, version: int | str | None, steps: int = 0) -> None:
        super().__init__(root, experiment, version)
        self._steps = steps

    @property
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._experiment = _Continued(self.log_dir, self._steps)
        return super().experiment


class _Continued(ExperimentWriter):
    """Keeps the rows that are there, where the base deletes them."""

    def __init__(self, log_dir: str, steps: int) -> None:
        self._steps = steps
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if int(row["step"]) < self._steps]
            self.metrics_keys = list(reader.fieldnames or [])
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, path)


def claim(root: str, experiment: str) -> int | None:
    """The number of a new run, whose folder no other run gets; None on other ranks, which are told it."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return None
    folder = Path(root) / experiment
    folder.mkdir(parents=True, exist_ok=True)
    version = max((number for number, _ in _runs(folder)), default=-1) + 1
    while True:
        try:
            (folder / f"version_{version}").mkdir()
            return version
        except FileExistsError:
            version += 1


def own_version(root: str, experiment: str, checkpoint: str | None) -> int | None:
    """The number of the run whose last checkpoint this is, where it is one of this experiment."""
    if checkpoint is None or Path(checkpoint).name != LAST:
        return None
    run = Path(checkpoint).resolve().parent.parent
    match = _VERSION.fullmatch(run.name)
    same = run.parent == (Path(root) / experiment).resolve() and Path(checkpoint).resolve().parent.name == "checkpoints"
    return int(match[1]) if match and same else None


def find(which: str, root: str, experiment: str, dirpath: str | None, monitor: str | None) -> str:
    """The last or best checkpoint of the newest run of an experiment that has one.

    Args:
        which: ``last`` or ``best``.
        root: folder of all experiments.
        experiment: name of the experiment.
        dirpath: ``checkpoint.dirpath``, where checkpoints lie if it is given.
        monitor: ``checkpoint.monitor``, by which the best was chosen.

    Raises:
        MetaLearningError: there is none.
    """
    folder = Path(root) / experiment
    places = [Path(dirpath)] if dirpath else [run / "checkpoints" for _, run in sorted(_runs(folder), reverse=True)]
    last = next((place / LAST for place in places if (place / LAST).is_file()), None)
    where = dirpath or f"{folder}/version_*/checkpoints"
    if last is None:
        raise MetaLearningError(
            f"ckpt_path is {which}, but there is no {LAST} in {where}: leave it out to start a run, or give the "
            "--experiment and --trainer.default_root_dir of the run, or the file itself"
        )
    if which == "last":
        return str(last)
    states = checkpoint_file.read(last, mmap=True).get("callbacks", {})
    for key, state in states.items():
        if key.startswith(ModelCheckpoint.__qualname__) and state["monitor"] == monitor and state["best_model_path"]:
            best = last.parent / Path(state["best_model_path"]).name
            if best.is_file():
                return str(best)
    raise MetaLearningError(
        f"ckpt_path is best, but the run in {last.parent.parent} kept none by {monitor}: set checkpoint.monitor "
        "to that of its fit, or ckpt_path to last"
    )


def _runs(folder: Path) -> list[tuple[int, Path]]:
    """The runs of an experiment by their numbers."""
    if not folder.is_dir():
        return []
    found = ((_VERSION.fullmatch(run.name), run) for run in folder.iterdir())
    return [(int(match[1]), run) for match, run in found if match and run.is_dir()]


def _in(folder: Path, path: str) -> str:
    """The file of this name in a folder, if it is there."""
    place = folder / Path(path).name
    return str(place) if path and place.is_file() else ""
