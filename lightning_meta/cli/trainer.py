"""What the command line adds to Lightning's trainer: a folder for each run, loggers, callbacks and configuration."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.profilers import PyTorchProfiler

from lightning_meta.callbacks import Figures, PredictionFile, Results, TasksPerSecond
from lightning_meta.cli.run_folder import RunMetrics, claim
from lightning_meta.errors import MetaLearningError


class RunConfig(SaveConfigCallback):
    """Writes the run's ``config.yaml``, and never over that of another run; its own, where the run goes on."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it.

        Raises:
            MetaLearningError: the folder holds one already.
        """
        path = Path(str(trainer.log_dir)) / self.config_filename
        if self.overwrite and not self.already_saved and trainer.is_global_zero and path.exists():
            earlier = path.read_text(encoding="utf-8")
            kept = path.with_name(f"config_before_{len([*path.parent.glob('config_before_*.yaml')])}.yaml")
            if _without_checkpoint(earlier) != _without_checkpoint(self.parser.dump(self.config, skip_none=False)):
                kept.write_text(earlier, encoding="utf-8")  # settings that the first part of the run had
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            raise MetaLearningError(
                f"{path} belongs to another run: let the logger write "
                "elsewhere with trainer.logger.save_dir, or leave trainer.logger out for a folder for each run"
            ) from error


def _without_checkpoint(config: str) -> list[str]:
    """The lines of a configuration but those about where the run started."""
    return [line for line in config.splitlines() if not line.startswith(("ckpt_path:", "#"))]


def check_experiment(name: str) -> None:
    """Refuse a name that would put the run outside ``trainer.default_root_dir``."""
    path = Path(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise MetaLearningError(
            f"experiment is {name!r}, expected the name of a folder below trainer.default_root_dir, such as omniglot: "
            "set trainer.default_root_dir to write elsewhere"
        )


def trainer_arguments(settings: Any, experiment: str, version: int | None, steps: int) -> dict[str, Any]:
    """A folder for each run, ROOT/EXPERIMENT/version_K, with loggers, and a profiler whose marks can be copied.

    Args:
        settings: those of the trainer.
        experiment: name of the experiment.
        version: number of the run, if it goes on in its own folder.
        steps: meta-steps that it has done.
    """
    root = settings["default_root_dir"]
    profiler = {"profiler": PyTorchProfiler(record_module_names=False)} if settings["profiler"] == "pytorch" else {}
    if settings["fast_dev_run"]:  # which writes nothing
        return profiler | {"enable_checkpointing": False}
    if settings["barebones"]:
        return profiler | {"logger": False}
    if settings["logger"] in (None, True):
        purge: dict[str, Any] = (
            {} if version is None else {"purge_step": steps}
        )  # what was logged later is measured again
        version = claim(root, experiment) if version is None else version
        board = TensorBoardLogger(root, experiment, version, **purge)
        return profiler | {"logger": [board, RunMetrics(root, experiment, board.version, steps)]}
    if settings["logger"] is False:
        version = claim(root, experiment) if version is None else version
        return profiler | {"default_root_dir": CSVLogger(root, experiment, version).log_dir}
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
        callbacks += [LearningRateMonitor(), Figures()]
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
