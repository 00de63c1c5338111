"""What the command line adds to Lightning's trainer: a folder for each run, loggers, callbacks and configuration."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PyTorchProfiler

from lightning_meta.callbacks import Board, Figures, PredictionFile, Results, TasksPerSecond
from lightning_meta.cli.run_folder import MetricsFile, check_folder, plain, regular_checkpoints
from lightning_meta.errors import MetaLearningError


class RunConfig(SaveConfigCallback):
    """Writes the run's ``config.yaml``, and never over that of another run."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it.

        Raises:
            MetaLearningError: the folder holds one already, unless it is of this very run, which goes on there.
        """
        folder, name = trainer.log_dir, self.config["run"]  # the folder is a collective: every rank asks
        if name and folder and not self.already_saved:
            self.overwrite = check_folder(Path(folder), plain(self.parser, self.config), stage == "fit")
            self.already_saved = self.overwrite and stage == "fit"  # the file says how the run began
            self.config = self.config.clone()
            self.config["run"] = None  # of this run alone, and not of those that are given the file
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            loggers = "let the logger write elsewhere with trainer.logger.save_dir, or leave trainer.logger out for a "
            hint = "give this one another name" if name else f"{loggers}folder for each run"
            path = Path(str(trainer.log_dir)) / self.config_filename
            raise MetaLearningError(f"{path} belongs to another run: {hint}") from error


def check_experiment(name: str) -> None:
    """Refuse a name that would put the run outside ``trainer.default_root_dir``."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise MetaLearningError(
            f"experiment is {name!r}, expected the name of a folder below trainer.default_root_dir, such as omniglot: "
            "set trainer.default_root_dir to write elsewhere"
        )


def trainer_arguments(settings: Any, experiment: str, run: str | None) -> dict[str, Any]:
    """A folder for each run, ROOT/EXPERIMENT/RUN, with loggers, and a profiler whose marks can be copied.

    Args:
        settings: those of the trainer.
        experiment: name of the experiment.
        run: name of the run; the next version_K that is free where it is None.
    """
    root = settings["default_root_dir"]
    profiler = {"profiler": PyTorchProfiler(record_module_names=False)} if settings["profiler"] == "pytorch" else {}
    if settings["fast_dev_run"]:  # which writes nothing
        return profiler | {"enable_checkpointing": False}
    if settings["barebones"]:
        return profiler | {"logger": False}
    if settings["logger"] in (None, True):
        board = TensorBoardLogger(root, experiment, run, default_hp_metric=False)
        return profiler | {"logger": [board, MetricsFile(root, experiment, board.version)]}
    if settings["logger"] is False:
        return profiler | {"default_root_dir": MetricsFile(root, experiment, run).log_dir}
    return profiler


def default_callbacks(settings: Any, experiment: str, run: str | None, command: str) -> list[Callback]:
    """What every run has, as far as the trainer's settings allow it.

    Args:
        settings: those of the trainer.
        experiment: name of the experiment.
        run: name of the run, where it has one.
        command: the command line of the run.
    """
    callbacks: list[Callback] = [Results(experiment, command), PredictionFile()]
    if settings["barebones"]:
        return callbacks
    callbacks.append(TasksPerSecond())
    if run:
        callbacks.append(regular_checkpoints())
    if settings["logger"] is not False:
        callbacks += [Board(), LearningRateMonitor(), Figures()]
    own = settings["callbacks"] or []
    own = own if isinstance(own, list) else [own]
    if settings["enable_progress_bar"] is not False and not any(isinstance(one, ProgressBar) for one in own):
        callbacks.append(TQDMProgressBar())
    return callbacks


def allowed(settings: Any, callbacks: list[Callback]) -> list[Callback]:
    """Without what saves checkpoints, where the trainer is not to save any."""
    if settings["enable_checkpointing"] is False or settings["barebones"]:
        return [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
    return callbacks
