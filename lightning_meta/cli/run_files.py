"""The files of a run that goes on where it was: its checkpoints, and its ``metrics.csv``."""

import csv
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.bounded_files import check_file
from lightning_meta.cli.run_folder import LAST
from lightning_meta.errors import MetaLearningError

MOST_BYTES = 2**31  # of metrics.csv, which is read row by row
CHECKED_EVERY = 50  # meta-steps
SAVED_EVERY = timedelta(minutes=10)  # what an interruption costs at most, where validations are rare or never come


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, whose ``last.ckpt`` is of the last validation, or of ten minutes ago where that is longer ago.

    A run that goes on in its own folder knows its best checkpoints again, also where the folder was moved; one that
    starts from the checkpoint of another run has none yet.
    """

    @property
    def state_key(self) -> str:
        """That of the base, by which checkpoints hold its state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    _saved = 0.0  # seconds of the clock
    _postponed = False  # whether the validation came between batches whose gradients are added up

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock.

        Raises:
            MetaLearningError: the folder holds the last checkpoint of another run, which this one would overwrite, or
                the best one would not lie beside the last, where it is looked for.
        """
        name = os.path.relpath(self.format_checkpoint_name({}), str(self.dirpath))
        if os.sep in name or (self.save_last and name == LAST):
            raise MetaLearningError(
                f"checkpoint.filename is {self.filename}, which gives {name}: expected a name without folders that is "
                f"not {LAST}, such as best-{{step}}; a metric with a slash needs auto_insert_metric_name false"
            )
        folder = Path(str(self.dirpath)).resolve()
        own = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve().parent == folder
        if self.save_last and not own and (folder / LAST).exists():
            raise MetaLearningError(
                f"checkpoint.dirpath is {self.dirpath}, which holds the checkpoints of another run: go on with it by "
                f"--ckpt_path={folder / LAST}, or take another folder, or leave the setting out for one for each run"
            )
        super().on_train_start(trainer, pl_module)
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save by the clock as well, whatever the validations do."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.save_last is not True or trainer.fit_loop._should_accumulate() or validates_next(trainer):
            return  # a run that went on from here would lose gradients, or leave the validation out
        due = time.monotonic() - self._saved >= SAVED_EVERY.total_seconds()
        asked = trainer.global_step % CHECKED_EVERY == 0  # now and then: ranks have to agree
        if self._postponed or (asked and trainer.strategy.broadcast(due)):
            self.save_meta_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best as the base does, and the last where that has not."""
        super().on_validation_end(trainer, pl_module)
        if self.save_last is not True or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._postponed = trainer.fit_loop._should_accumulate()
        if not self._postponed and not self._should_skip_saving_checkpoint(trainer):
            self.save_as_last(trainer)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
        """Not between batches whose gradients are added up: `on_train_batch_end` does so after the last of them."""
        if self.save_last is not True or not trainer.fit_loop._should_accumulate():
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def save_meta_step(self, trainer: Trainer) -> str:
        """The same in ``on_train_batch_end``, after which Lightning would log the row of this meta-step."""
        connector: Any = trainer._logger_connector
        connector.update_train_step_metrics()
        connector.update_train_step_metrics = partial(delattr, connector, "update_train_step_metrics")  # once
        return self.save_as_last(trainer)

    def save_as_last(self, trainer: Trainer) -> str:
        """Write ``last.ckpt`` now, after all that was logged; returns its path."""
        for logger in trainer.loggers:
            logger.save()
        self.last_model_path = str(Path(str(self.dirpath)) / LAST)  # part of the state that is saved
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
        self._saved, self._postponed = time.monotonic(), False
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


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that ends; unknown, and so false, where the clock says when it is due."""
    loop = trainer.fit_loop
    by_time = getattr(trainer, "_val_check_time_interval", None) is not None
    return not by_time and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]


class RunMetrics(CSVLogger):
    """Lightning's ``metrics.csv``, to which a run that goes on appends.

    Args:
        root: folder of all experiments.
        experiment: name of the experiment.
        version: number or name of the run.
        steps: meta-steps that the run has done; rows of later ones, which are measured again, are left out. None where
            it does not train, and so measures none of them again.
    """

    def __init__(self, root: str, experiment: str, version: int | str | None, steps: int | None = 0) -> None:
        super().__init__(root, experiment, version)
        self._steps = math.inf if steps is None else steps

    @property
    def experiment(self) -> Any:
        """What writes the file."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._experiment = _Continued(self.log_dir, self._steps)
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Record metrics; those of a validation reach the file at once, before the checkpoint that follows it."""
        super().log_metrics(metrics, step)
        if any(name.startswith("val") for name in metrics):
            self.save()


class _Continued(ExperimentWriter):
    """Keeps the rows that are there, where the base deletes them, but for one that was cut off.

    A file that is no log is put aside with a warning, as damaged results are: it costs neither itself nor the run.
    """

    def __init__(self, log_dir: str, steps: float) -> None:
        self._steps: float | None = steps
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Nothing is changed yet: a run that may not write here is refused before it logs anything."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        if self._steps is not None:
            self._keep_rows(Path(self.metrics_file_path), self._steps)
            self._steps = None
        super().log_metrics(metrics_dict, step)

    def _keep_rows(self, path: Path, steps: float) -> None:
        if not os.path.lexists(path):
            return
        try:
            check_file(path, MOST_BYTES)
            with path.open(encoding="utf-8", newline="") as file, _replacing(path) as written:
                rows, writer = csv.reader(file), csv.writer(written)
                names = next(rows, [])
                place = names.index("step")
                writer.writerow(names)
                writer.writerows(row for row in rows if len(row) == len(names) and _before(row[place], steps))
            self.metrics_keys = names
        except (MetaLearningError, csv.Error, ValueError) as error:
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            warnings.warn(f"{path} is damaged ({error}); it is now {aside.name}, and a new one begins", stacklevel=2)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """In one step, where the base empties the file first: a kill or a full disk would then lose all of it."""
        path = Path(self.metrics_file_path)
        with path.open(encoding="utf-8", newline="") as file, _replacing(path) as written:
            rows = csv.DictReader(file)
            writer = csv.DictWriter(written, fieldnames)
            writer.writeheader()
            writer.writerows(rows)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of another when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _before(step: str, steps: float) -> bool:
    """Whether this is the number of a meta-step before another."""
    return step.isascii() and step.isdigit() and int(step) < steps


def _in(folder: Path, path: str) -> str:
    """The file of this name in a folder, if it is there."""
    place = folder / Path(path).name
    return str(place) if path and place.is_file() else ""
