"""A run with a name of its own: where it writes, and how it goes on there after an interruption."""

import csv
import io
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_meta.bounded_files import read_yaml
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.settings import flatten

SAVED_EVERY = timedelta(minutes=10)  # what an interruption costs at most, where validations are rare or never come


def check_run(name: str | None) -> None:
    """Refuse a name that is more than one folder."""
    if name is not None and (name in ("", ".", "..") or "/" in name or os.sep in name):
        raise MetaLearningError(
            f"run is {name!r}, expected the name of one folder below that of the experiment, such as first: set "
            "experiment for the folders above it"
        )


def plain(parser: LightningArgumentParser, settings: Any) -> dict[str, Any]:
    """The settings of a subcommand as its ``config.yaml`` holds them."""
    content: dict[str, Any] = yaml.safe_load(parser.dump(settings, skip_unset=False))
    return content


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations learn the same: equal in seed, experiment and all settings that count in a report."""
    seed_and_experiment = [(run.get("seed_everything"), run.get("experiment")) for run in (one, other)]
    return flatten(one) == flatten(other) and seed_and_experiment[0] == seed_and_experiment[1]


def check_folder(folder: Path, settings: Mapping[str, Any], fits: bool) -> bool:
    """Whether the folder of a named run holds this very run already, which then may write there.

    Args:
        folder: that of the run.
        settings: its settings, as `plain` gives them.
        fits: whether it trains.

    Raises:
        MetaLearningError: the training would start from scratch beside the checkpoint of an earlier start.
    """
    path = folder / "config.yaml"
    if not path.exists() or not same_run(read_yaml(path), settings):
        return False
    last = folder / "checkpoints" / "last.ckpt"
    if fits and last.exists() and not settings.get("ckpt_path"):
        raise MetaLearningError(
            f"run is {settings.get('run')!r}, and {last} is a checkpoint of this very run: go on from it with "
            f"--ckpt_path={last}, or start another run"
        )
    return True


def regular_checkpoints() -> Callback:
    """Saves ``last.ckpt`` by the clock as well, whatever the validations do."""
    return ModelCheckpoint(filename="last", train_time_interval=SAVED_EVERY, enable_version_counter=False)


class MetricsFile(CSVLogger):
    """Lightning's ``metrics.csv``, which also goes on with the file of an interrupted run.

    A validation is written at once, before the checkpoint that follows it, so that a run that is killed and goes on
    from there has no gap. What the killed process logged after its last checkpoint is logged again.
    """

    _goes_on = False

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer, which removes the file of an earlier process when it is made."""
        if self._experiment is None:
            path = Path(self.log_dir, ExperimentWriter.NAME_METRICS_FILE)
            earlier = path.read_text(encoding="utf-8") if path.exists() else ""
            writer = super().experiment
            if earlier and isinstance(writer, ExperimentWriter):  # other ranks write nothing
                _replace(path, earlier)
                writer.metrics_keys = earlier.splitlines()[0].split(",")
                self._goes_on = True
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Record metrics; those of a validation reach the file at once."""
        path = Path(self.experiment.metrics_file_path)
        if self._goes_on and step is not None:
            self._goes_on = False
            _replace(path, _rows_before(path.read_text(encoding="utf-8"), step))
        super().log_metrics(metrics, step)
        if any(name.startswith("val") for name in metrics):
            self.save()


def _rows_before(text: str, step: int) -> str:
    """A CSV file without the rows of this step and later ones, and without a row that was cut off."""
    reader = csv.DictReader(io.StringIO(text))
    kept = io.StringIO()
    writer = csv.DictWriter(kept, reader.fieldnames or [], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(row for row in reader if (row["step"] or "").isdigit() and int(row["step"]) < step)
    return kept.getvalue()


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, so that whoever kills the process never leaves half of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="")
    os.replace(partial, path)
