"""The command line: LightningCLI with any algorithm, any data and one number of outputs between them."""

import pickle
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

# Imported so that their classes are known by their short names.
from lightning_meta import backbones as backbones
from lightning_meta.allocator import keep_freed_memory
from lightning_meta.callbacks import Ensemble, Figures, PredictionFile, Results, TasksPerSecond
from lightning_meta.data import EpisodeDataModule
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "logs",
    "accelerator": "auto",
    "devices": 1,
    "val_check_interval": 250,
    "max_epochs": -1,
    "check_val_every_n_epoch": None,  # a run is one epoch, counted in meta-steps
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}

CHECKPOINT_DEFAULTS = {
    "checkpoint.monitor": "val_accuracy",
    "checkpoint.mode": "max",
    "checkpoint.filename": "best-{step}",
    "checkpoint.save_last": True,
}

NOISE = [
    ".*does not have many workers",  # one vectorised draw makes a meta-batch, faster than workers hand it over
    ".*Previous log files in this directory",  # the TensorBoard logger and the saved configuration share the folder
    ".*LeafSpec",  # Lightning 2.6 on torch 2.15
    ".*across ranks is zero",  # a split without validation classes has no loader
    "The dirpath has changed",  # every command has a run folder of its own
    ".*your dataloader is not resumable",  # the data module goes on where the checkpoint was
    "Couldn.t infer the batch indices",  # predictions carry the numbers of their tasks
    "LightningCLI's args parameter",  # `main` is called from Python in tests and notebooks
]

FOLDERS = ("--data.root", "--data.cache_dir", "--data.x", "--data.y", "--trainer.default_root_dir")  # the machine's own

MISTAKES = (MetaLearningError, MisconfigurationException)


class MetaCLI(LightningCLI):
    """LightningCLI for episodic data: run folders, callbacks, and a test at the end of a fit."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links, so that outputs and seed are given once, and defaults of the run."""
        parser.add_argument("--experiment", type=str, default="experiment", help="Folder of the run, below the root.")
        help_text = "Checkpoints, the best by their validation, whose outputs a test averages."
        parser.add_argument("--ensemble", type=int, default=1, help=help_text)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(CHECKPOINT_DEFAULTS)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_task_seed)
        parser.link_arguments("data.outputs", "model.init_args.backbone.init_args.outputs", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, which logs to TensorBoard and CSV under ROOT/EXPERIMENT/version_K unless loggers are given."""
        config = self._get(self.config_init, "trainer")
        experiment = self._get(self.config_init, "experiment")
        callbacks: list[Callback] = [Results(experiment, self.command), TasksPerSecond(), PredictionFile()]
        if config["logger"] in (None, True):
            board = TensorBoardLogger(config["default_root_dir"], experiment)
            kwargs["logger"] = [board, CSVLogger(config["default_root_dir"], experiment, board.version)]
        if config["logger"] is not False:
            callbacks += [LearningRateMonitor(), Figures()]
        if config["enable_progress_bar"] is not False:
            callbacks.append(TQDMProgressBar())
        if self.subcommand == "test":
            callbacks += self._ensemble()
        self.trainer_defaults["callbacks"] = callbacks
        return super().instantiate_trainer(**kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keep what was typed for the record of the results, and the checkpoints that an ensemble needs."""
        assert args is None or isinstance(args, list)
        self.command = _recorded(sys.argv[1:] if args is None else args)
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand]
        checkpoint, size = settings["checkpoint"], settings["ensemble"]
        if size < 1:
            raise MetaLearningError(f"ensemble is {size}, expected a number of checkpoints that is at least 1")
        if size > 1 and self.config.subcommand == "fit" and checkpoint["monitor"] is None:
            raise MetaLearningError(
                f"ensemble is {size}, but checkpoint.monitor is null: set it to what a validation logs, such as "
                "val_accuracy, on a split with validation classes"
            )
        if size > 1 and checkpoint["save_top_k"] >= 0:
            checkpoint["save_top_k"] = max(checkpoint["save_top_k"], size)

    def _parse_ckpt_path(self) -> None:
        """Check the file, and leave the settings as given: Lightning would put the checkpoint's over all of them."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path in (None, "best", "last", "hpc"):
            return
        try:
            torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        except FileNotFoundError:
            raise MetaLearningError(f"ckpt_path is {path}, but there is no such file") from None
        except (pickle.UnpicklingError, RuntimeError, OSError) as error:
            raise MetaLearningError(f"ckpt_path is {path}, which cannot be read as a checkpoint: {error}") from error

    def _dump_config(self) -> None:
        """Leave room for the linked number in a backbone without other arguments, where Lightning would crash."""
        super()._dump_config()
        backbone = self.config_dump["model"].get("init_args", {}).get("backbone")
        if isinstance(backbone, dict):
            backbone.setdefault("init_args", {})

    def after_fit(self) -> None:
        """Test the best checkpoint, or the last where nothing was monitored."""
        checkpoint = self.trainer.checkpoint_callback
        path = None
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath:
            # The callback's own last checkpoint is that of the last validation.
            path = str(Path(checkpoint.dirpath) / "last.ckpt")
            self.trainer.save_checkpoint(path)
            best = checkpoint.best_model_path
            path = best if best and Path(best).parent == Path(checkpoint.dirpath) else path
        if self.datamodule.test_tasks:
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False)
            if ensemble := self._ensemble():
                self.trainer.callbacks += ensemble  # type: ignore[attr-defined]
                self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False)

    def _ensemble(self) -> list[Callback]:
        """What makes a test one of several checkpoints, where that is asked for."""
        size = self.config[str(self.subcommand)]["ensemble"]
        return [Ensemble(size)] if size > 1 else []

    def before_validate(self) -> None:
        """Our own table stands for Lightning's."""
        self.config_init[self.subcommand]["verbose"] = False

    before_test = before_validate


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Args:
        args: arguments; those of the process when None.
    """
    keep_freed_memory()
    with warnings.catch_warnings():
        for noise in NOISE:
            warnings.filterwarnings("ignore", message=noise)
        try:
            MetaCLI(
                MetaLearner,
                EpisodeDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                trainer_defaults=dict(TRAINER_DEFAULTS),
                seed_everything_default=0,
                parser_kwargs={"default_env": True, "description": "Meta-train few-shot learners."},
                args=args,
            )
        except Exception as error:
            mistake = next((cause for cause in _causes(error) if isinstance(cause, MISTAKES)), None)
            if mistake is None:
                raise
            print(f"lightning-meta: error: {mistake}", file=sys.stderr)
            return 2
    return 0


def _recorded(args: list[str]) -> str:
    """The command line for the record, without folders."""
    shown = list(args)
    for place, argument in enumerate(args):
        name, equals, _ = argument.partition("=")
        if name in FOLDERS and equals:
            shown[place] = f"{name}=DIR"
        elif name in FOLDERS and place + 1 < len(args):
            shown[place + 1] = "DIR"
    return shlex.join(["lightning-meta", *shown])


def _task_seed(seed_everything: bool | int) -> int:
    if isinstance(seed_everything, bool):
        raise ValueError("seed_everything must be a number: it names the stream of tasks as well")
    return seed_everything


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what lies behind it; jsonargparse wraps those of constructors."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
