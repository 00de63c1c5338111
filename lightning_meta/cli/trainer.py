"""What the command line adds to Lightning's trainer: a folder for each run, loggers, callbacks and configuration."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import register_type
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PyTorchProfiler

from lightning_meta.callbacks import Board, Figures, PredictionFile, Results, TasksPerSecond
from lightning_meta.cli.run_files import RunMetrics
from lightning_meta.cli.run_folder import check_last, enter, hold, plain, same_run
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.trainer import check_precision_name
from lightning_meta.report.runs import read_config

# A default of StochasticWeightAveraging, which would stand in config.yaml as what cannot be read again.
register_type(torch.device, str, torch.device, deserializer_exceptions=(ValueError, TypeError, RuntimeError))


class RunConfig(SaveConfigCallback):
    """Writes the run's ``config.yaml``, and never over that of another run; its own, where the run goes on."""

    changed = False  # whether the run goes on with other settings, which are written when it does

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it.

        Raises:
            MetaLearningError: the folder holds one already, unless it is of this very run, which goes on there.
        """
        folder, name = trainer.log_dir, self.config["run"]  # the folder is a collective: every rank asks
        path = Path(str(folder)) / self.config_filename
        self.save_to_log_dir = folder is not None  # a logger of a person's own may have none
        if folder and stage == "fit" and trainer.is_global_zero:
            hold(Path(folder))
        if folder and not self.already_saved:
            if trainer.is_global_zero and path.is_file() and not path.stat().st_size:
                path.unlink()  # left by a start that was killed while it wrote
            settings, goes_on = plain(self.parser, self.config), self.overwrite
            if (name or goes_on) and path.exists() and same_run(read_config(path), settings):
                if stage == "fit":
                    check_last(Path(folder), settings)
                self.already_saved = True  # the file says how the run began
            elif goes_on and path.exists():
                self.already_saved = self.changed = True  # nothing is written before the checkpoint is accepted
            self.config = self.config.clone()
            self.config["run"] = None  # of this run alone, and not of those that are given the file
            if goes_on:
                self.config["ckpt_path"] = None
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            loggers = "let the logger write elsewhere with trainer.logger.save_dir, or leave trainer.logger out for a "
            hint = "give this one another name" if name else f"{loggers}folder for each run"
            raise MetaLearningError(f"{path} belongs to another run: {hint}") from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the settings of the first part of a run that goes on with others, and write these."""
        if not self.changed:
            return
        path = Path(str(trainer.log_dir)) / self.config_filename
        if trainer.is_global_zero:
            number = len([*path.parent.glob("config_before_*.yaml")])
            path.rename(path.with_name(f"config_before_{number}.yaml"))
        self.already_saved = self.changed = False
        super().setup(trainer, pl_module, "fit")


def check_experiment(name: str) -> None:
    """Refuse a name that would put the run outside ``trainer.default_root_dir``."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise MetaLearningError(
            f"experiment is {name!r}, expected the name of a folder below trainer.default_root_dir, such as omniglot: "
            "set trainer.default_root_dir to write elsewhere"
        )


def trainer_arguments(
    settings: Any, experiment: str, run: str | None, steps: int | None, new: list[Path]
) -> dict[str, Any]:
    """A folder for each run, ROOT/EXPERIMENT/RUN, with loggers, and a profiler whose marks can be copied.

    Args:
        settings: those of the trainer.
        experiment: name of the experiment.
        run: name of the run; a version_K that no other run has where it is None.
        steps: meta-steps after which the run trains on in its folder; None where it does not train.
        new: to which the run's folder is added, unless it was there before.
    """
    check_precision_name(str(settings["precision"]))
    root = settings["default_root_dir"]
    profiler = {"profiler": PyTorchProfiler(record_module_names=False)} if settings["profiler"] == "pytorch" else {}
    if settings["fast_dev_run"]:  # which writes nothing
        return profiler | {"enable_checkpointing": False}
    if settings["barebones"]:
        return profiler | {"logger": False}
    if settings["logger"] in (None, True):
        version = enter(root, experiment, run, new)
        purge: dict[str, Any] = {"purge_step": steps} if steps else {}  # what was logged later is measured again
        board = TensorBoardLogger(root, experiment, version, default_hp_metric=False, **purge)
        return profiler | {"logger": [board, RunMetrics(root, experiment, board.version, steps)]}
    if settings["logger"] is False:
        version = enter(root, experiment, run, new)
        return profiler | {"default_root_dir": RunMetrics(root, experiment, version).log_dir}
    return profiler


def default_callbacks(settings: Any, experiment: str, command: str) -> list[Callback]:
    """What every run has, as far as the trainer's settings allow it.

    Args:
        settings: those of the trainer.
        experiment: name of the experiment.
        command: the command line of the run.
    """
    callbacks: list[Callback] = [Results(experiment, command), PredictionFile()]
    if settings["barebones"]:
        return callbacks
    callbacks.append(TasksPerSecond())
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
