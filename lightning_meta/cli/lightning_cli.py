"""What runs a learner: LightningCLI with any algorithm, any data and one number of outputs between them."""

import shlex
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

# Imported so that their classes are known by their short names.
from lightning_meta import algorithms as algorithms
from lightning_meta import backbones as backbones
from lightning_meta import checkpoint_file
from lightning_meta import distributed as distributed
from lightning_meta.allocator import keep_freed_memory
from lightning_meta.callbacks import Ensemble
from lightning_meta.cli import run_folder, seeds
from lightning_meta.cli.help import DESCRIPTIONS, HelpfulParser
from lightning_meta.cli.mistakes import explain
from lightning_meta.cli.options import ConfigurationOption
from lightning_meta.cli.trainer import RunConfig, allowed, check_experiment, default_callbacks, trainer_arguments
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
    "You are trying to `self.log",  # without a logger by trainer.barebones
    "Couldn.t infer the batch indices",  # predictions carry the numbers of their tasks
    "LightningCLI's args parameter",  # `main` is called from Python in tests and notebooks
]

FOLDERS = (
    "--data.root",
    "--data.cache_dir",
    "--data.split_file",
    "--data.x",
    "--data.y",
    "--trainer.default_root_dir",
)  # the machine's own

MISTAKES = (MetaLearningError, MisconfigurationException)


class MetaCLI(LightningCLI):
    """LightningCLI for episodic data: run folders, callbacks, and a test at the end of a fit.

    Args:
        name: the subcommand.
        arguments: what follows it on the command line.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name, self.arguments = name, arguments
        self.command = _recorded([name, *arguments])
        super().__init__(
            MetaLearner,
            EpisodeDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=0,
            parser_class=HelpfulParser,
            parser_kwargs={"default_env": True} | {key: {"subcommand_name": key} for key in DESCRIPTIONS},
            args=[name, *arguments],
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that also takes shipped configurations by their names."""
        parser = self.parser_class(prog="lightning-meta", **kwargs)
        parser.add_argument("-c", "--config", action=ConfigurationOption)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links, so that outputs and seed are given once, and defaults of the run."""
        parser.add_argument("--experiment", type=str, default="experiment")  # help.py explains all of these
        parser.add_argument("--ensemble", type=int, default=1)
        parser.add_lightning_class_args(run_folder.RunCheckpoint, "checkpoint")
        parser.set_defaults(CHECKPOINT_DEFAULTS)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=seeds.task_seed)
        parser.link_arguments("data.outputs", "model.init_args.backbone.init_args.outputs", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        """Learner, data and trainer; what their constructors say of their settings is said in one line."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            said = explain(str(error), self.name, self._parser(self.name))
            raise _mistake(error) or MetaLearningError(f"{said}{_origin(error)}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, which logs to TensorBoard and CSV under ROOT/EXPERIMENT/version_K unless loggers are given."""
        settings = self._get(self.config_init, "trainer")
        experiment = self._get(self.config_init, "experiment")
        version = None
        if self.subcommand == "fit":
            path = self.config_init["fit"].get("ckpt_path")
            version = run_folder.own_version(settings["default_root_dir"], experiment, path)
            self.save_config_kwargs = {"overwrite": version is not None}
        kwargs |= trainer_arguments(settings, experiment, version, self.steps_done)
        callbacks = default_callbacks(settings, experiment, self.command)
        if self.subcommand == "test":
            callbacks += self._ensemble()
        self.trainer_defaults["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            raise MetaLearningError(f"trainer: {error}") from error

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Without the callbacks that the trainer would refuse."""
        return super()._instantiate_trainer(config, allowed(config, callbacks))

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Say what is wrong in terms of the settings, and keep the checkpoints that an ensemble needs."""
        seeds.check_options(self.arguments)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise _mistake(error) or explain(str(error), self.name, self._parser(self.name)) from error
        settings = self.config[self.config.subcommand]
        checkpoint, size = settings["checkpoint"], settings["ensemble"]
        check_experiment(settings["experiment"])
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
        self.steps_done = 0
        settings = self.config[self.config.subcommand]
        path, saving = settings.get("ckpt_path"), settings["checkpoint"]
        if path in ("best", "last"):
            root = settings["trainer"]["default_root_dir"]
            path = run_folder.find(path, root, settings["experiment"], saving["dirpath"], saving["monitor"])
            print(f"ckpt_path is {settings['ckpt_path']}: {path}")
            settings["ckpt_path"] = path
        if path in (None, "hpc"):
            return
        try:
            read = checkpoint_file.read(path, settings.get("weights_only") is not False)
        except MetaLearningError as error:
            raise MetaLearningError(f"ckpt_path: {error}") from error
        self.steps_done = read.get("global_step", 0)

    def _dump_config(self) -> None:
        """Leave room for the linked number in a backbone without other arguments, where Lightning would crash."""
        super()._dump_config()
        backbone = self.config_dump["model"].get("init_args", {}).get("backbone")
        if isinstance(backbone, dict):
            backbone.setdefault("init_args", {})

    def after_fit(self) -> None:
        """Test the best checkpoint, or the last where nothing was monitored."""
        if not self.model.meta_steps:
            raise MetaLearningError(
                "the fit ended before its first meta-step, so there is nothing to test: raise trainer.max_steps, "
                "trainer.max_epochs or trainer.max_time"
            )
        checkpoint = self.trainer.checkpoint_callback
        path = None
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath:
            # The callback's own last checkpoint is that of the last validation.
            path = str(Path(checkpoint.dirpath) / run_folder.LAST)
            if isinstance(checkpoint, run_folder.RunCheckpoint):
                checkpoint.save_as_last(self.trainer)
            else:
                self.trainer.save_checkpoint(path)
            best = checkpoint.best_model_path
            path = best if best and Path(best).parent == Path(checkpoint.dirpath) else path
        if self.datamodule.test_tasks and self.trainer.limit_test_batches:
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


def run(name: str, args: list[str]) -> int:
    """Run a subcommand of LightningCLI; returns the exit status.

    Args:
        name: fit, validate, test or predict.
        args: what follows it on the command line.

    Raises:
        MetaLearningError: what a person can mend.
    """
    keep_freed_memory()
    with warnings.catch_warnings():
        for noise in NOISE:
            warnings.filterwarnings("ignore", message=noise)
        try:
            MetaCLI(name, args)
        except OSError as error:
            raise MetaLearningError(str(error)) from error
        except Exception as error:
            mistake = _mistake(error)
            if mistake is None and isinstance(error, ValueError) and _raised_in("configure_optimizers", error):
                mistake = MetaLearningError(f"model.optimizer or model.lr_scheduler: {error}")
            if mistake is None and isinstance(error, RuntimeError) and _raised_in("_validate_condition_metric", error):
                mistake = MetaLearningError(f"trainer.callbacks: {error}")
            if mistake is None:
                raise
            raise MetaLearningError(str(mistake)) from error
    return 0


fit, validate, test, predict = (partial(run, name) for name in ("fit", "validate", "test", "predict"))


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


def _mistake(error: BaseException | None) -> BaseException | None:
    """What a person can mend, among the error and what lies behind it; jsonargparse wraps those of constructors."""
    while error is not None and not isinstance(error, MISTAKES):
        error = error.__cause__ or error.__context__
    return error


def _raised_in(function: str, error: Exception) -> bool:
    """Whether a function of this name was running."""
    return any(frame.name == function for frame in traceback.extract_tb(error.__traceback__))


def _origin(error: BaseException) -> str:
    """The line of a person's own file, or of this checkout, that an error comes from."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
