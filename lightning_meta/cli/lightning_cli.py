"""What runs a learner: LightningCLI with any algorithm, any data and one number of outputs between them."""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

# Imported so that their classes are known by their short names.
from lightning_meta import algorithms as algorithms
from lightning_meta import backbones as backbones
from lightning_meta import checkpoint_file, learner_file
from lightning_meta import distributed as distributed
from lightning_meta.callbacks import Ensemble
from lightning_meta.cli import jobs, run_folder, seeds
from lightning_meta.cli.blame import find_mistake, origin
from lightning_meta.cli.help import HelpfulParser
from lightning_meta.cli.mistakes import explain
from lightning_meta.cli.options import ConfigurationOption, configurations_first
from lightning_meta.cli.run_files import RunCheckpoint
from lightning_meta.cli.run_folder import check_run
from lightning_meta.cli.signals import Stop
from lightning_meta.cli.trainer import RunConfig, allowed, check_experiment, default_callbacks, trainer_arguments
from lightning_meta.data import EpisodeDataModule
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable
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

FOLDERS = (
    "--data.root",
    "--data.cache_dir",
    "--data.split_file",
    "--data.x",
    "--data.y",
    "--trainer.default_root_dir",
)  # the machine's own


class MetaCLI(LightningCLI):
    """LightningCLI for episodic data: run folders, callbacks, and a test at the end of a fit.

    Args:
        name: the subcommand.
        arguments: what follows it on the command line.
        new: to which the run's folder is added, unless it was there before.
        stop: by which a signal ends it.
    """

    runs: type[Trainer] = Trainer  # whose methods are the subcommands

    def __init__(self, name: str, arguments: list[str], new: list[Path], stop: Stop) -> None:
        self.name, self.arguments, self.new, self.stop = name, arguments, new, stop
        self.command = _recorded([name, *arguments])
        super().__init__(
            MetaLearner,
            EpisodeDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            trainer_class=self.runs,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=0,
            parser_class=HelpfulParser,
            parser_kwargs={"default_env": True, name: {"subcommand_name": name}},
            args=[name, *configurations_first(arguments)],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that runs: the parsers of the others would take most of the time until a mistake is reported."""
        return {self.name: super().subcommands()[self.name]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that also takes shipped configurations by their names."""
        parser = self.parser_class(prog="lightning-meta", **kwargs)
        parser.add_argument("-c", "--config", action=ConfigurationOption)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links, so that outputs and seed are given once, and defaults of the run."""
        parser.add_argument("--experiment", type=str, default="experiment")  # help.py explains all of these
        parser.add_argument("--run", type=str | None, default=None)
        parser.add_argument("--ensemble", type=int, default=1)
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(CHECKPOINT_DEFAULTS)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=seeds.task_seed)
        parser.link_arguments("data.outputs", "model.init_args.backbone.init_args.outputs", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        """Learner, data and trainer; what their constructors say of their settings is said in one line."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            said = explain(str(error), self.name, self._parser(self.name))
            raise find_mistake(error) or MetaLearningError(f"{said}{origin(error)}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, which logs to TensorBoard and CSV under ROOT/EXPERIMENT/version_K unless loggers are given."""
        settings = self._get(self.config_init, "trainer")
        experiment, run = (self._get(self.config_init, name) for name in ("experiment", "run"))
        goes_on = False
        if self.subcommand == "fit":
            path = self.config_init["fit"].get("ckpt_path")
            own = run_folder.own_run(settings["default_root_dir"], experiment, path)
            goes_on = own is not None and run in (None, own)
            run = own if goes_on else run
            self.save_config_kwargs = {"overwrite": goes_on}
        steps = self.steps_done if goes_on else 0 if self.subcommand == "fit" else None
        kwargs |= trainer_arguments(settings, experiment, run, steps, self.new)
        callbacks = default_callbacks(settings, experiment, self.command)
        if self.subcommand == "test":
            callbacks += self._ensemble()
        self.trainer_defaults["callbacks"] = callbacks
        try:
            trainer = super().instantiate_trainer(**kwargs)
            self.stop.watch(trainer)
            return trainer
        except (TypeError, ValueError, ImportError) as error:
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
            raise find_mistake(error) or explain(str(error), self.name, self._parser(self.name)) from error
        settings = self.config[self.config.subcommand]
        for group in ("trainer", "checkpoint"):  # which jsonargparse lets be anything in a file
            if not isinstance(value := settings[group], Namespace):
                shown = "null" if value is None else value
                raise MetaLearningError(f"{group} is {shown}, expected settings such as {group}.NAME: VALUE")
        checkpoint, size = settings["checkpoint"], settings["ensemble"]
        check_experiment(settings["experiment"])
        check_run(settings["run"])
        if settings["run"]:  # which goes on in its folder, with the same names
            checkpoint["enable_version_counter"] = False
        run_folder.check_direction(checkpoint["monitor"], checkpoint["mode"])
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
        self.steps_done, self.shipped = 0, None
        settings = self.config[self.config.subcommand]
        path, saving = settings.get("ckpt_path"), settings["checkpoint"]
        if self.name == "fit":
            path = self._of_job(settings) or path
        if path in ("best", "last"):
            root = settings["trainer"]["default_root_dir"]
            path = run_folder.find(path, root, settings["experiment"], saving["dirpath"], saving["monitor"])
            print(printable(f"ckpt_path is {settings['ckpt_path']}: {path}"))
            settings["ckpt_path"] = path
        if path is None:
            return
        self.shipped = learner_file.pretrained().get(path)  # while the settings keep its name
        if self.name == "fit" and (self.shipped or Path(path).suffix == learner_file.SUFFIX):
            raise MetaLearningError(
                f"ckpt_path is {path}, a learner without its run, from which a fit cannot go on: give the last.ckpt of "
                "a run, or only test it"
            )
        if self.shipped and (size := settings["ensemble"]) > 1:
            raise MetaLearningError(f"ensemble is {size}, but ckpt_path is {path}, one learner: set ensemble to 1")
        try:
            read = checkpoint_file.read(self.shipped or path, settings.get("weights_only") is not False)
        except MetaLearningError as error:
            near = learner_file.near_names(path)
            raise MetaLearningError(f"ckpt_path: {error}{near and '; '}{near}") from error
        self.steps_done = read.get("global_step", 0)

    def _of_job(self, settings: Any) -> str | None:
        """The last checkpoint of this very command, where its job is started again."""
        root, dirpath = settings["trainer"]["default_root_dir"], settings["checkpoint"]["dirpath"]
        path = jobs.find_last(self.stop.arguments, run_folder.checkpoint_folders(root, settings["experiment"], dirpath))
        if path:
            print(printable(f"the job is started again, and goes on from {path}"))
            settings["ckpt_path"] = path
        return path

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
            path = self.stop.saved = str(Path(checkpoint.dirpath) / run_folder.LAST)
            if isinstance(checkpoint, RunCheckpoint):
                checkpoint.save_as_last(self.trainer)
            else:
                self.trainer.save_checkpoint(path)
            best = checkpoint.best_model_path
            path = best if best and Path(best).parent == Path(checkpoint.dirpath) else path
        self.stop.no_more_to_save()
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
        self.before_predict()

    before_test = before_validate

    def before_predict(self) -> None:
        """Give the trainer the file of a learner that comes with the package."""
        if self.shipped:
            self.config_init[self.subcommand]["ckpt_path"] = str(self.shipped)


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
