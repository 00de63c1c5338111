"""What a checkpoint says beside the weights: the method, the data, and how far the training was."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jsonargparse import ArgumentError
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import DoublePrecision, TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from lightning_meta import checkpoint_file, learner_file
from lightning_meta.episode import EpisodeSource
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checkpoint_io import AtomicCheckpointIO, is_local
from lightning_meta.learner.checks.checkpoint import (
    Changed,
    check_defaults,
    check_method,
    check_outer_settings,
    check_outer_state,
    check_resumable,
    check_same_inputs,
    check_same_tasks,
    check_tensors,
)
from lightning_meta.learner.hyperparameters import keep_descriptions, public_path
from lightning_meta.learner.linear_head import ends_with_linear
from lightning_meta.params import named

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_WITHOUT_EFFECT = {"task_chunk", "compile", "_instantiator", "_class_path"}  # on what is computed
_OF_TRAINING = {"optimizer", "lr_scheduler", "outer_reduction"}  # and without effect on an evaluation


class CheckpointedModule(LightningModule):
    """A module whose checkpoints are written and read by `AtomicCheckpointIO`, unless the trainer was given another."""

    meta_steps: int  # that the weights have been trained for
    train_seconds: float  # that this took, with validation

    def setup(self, stage: str) -> None:
        """Take the place of Lightning's own files."""
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = AtomicCheckpointIO()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Lightning's, of a file that was verified, and of this method.

        Raises:
            MetaLearningError: there is no such file, it is damaged, of another method, or no checkpoint of a run.
        """
        kind, content = cast("type[MetaLearner]", cls), {}
        if isinstance(checkpoint_path, str | Path) and is_local(checkpoint_path):
            if Path(checkpoint_path).suffix == learner_file.SUFFIX:
                raise MetaLearningError(f"{checkpoint_path} is a learner without its run: use load_learner")
            content = checkpoint_file.read(checkpoint_path, kwargs.get("weights_only") is not False)
            check_method(kind, kind.trained_alike, content.get("method"))  # before another method's settings are read
        try:
            learner = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except ArgumentError as error:
            if not isinstance(checkpoint_path, str | Path):
                raise  # whoever has opened the file knows its name
            settings = f"settings of {content.get('method') or 'a learner'} that {cls.__name__} does not take ({error})"
            remedy = f"build the {cls.__name__}, and give the file to trainer.test as ckpt_path"
            if str(error).endswith("are required: module.backbone"):
                settings = "no backbone, as that of a learner that was built in Python has no plain form"
                remedy = f"give it again, as in {cls.__name__}.load_from_checkpoint(path, backbone=...)"
            raise MetaLearningError(f"{checkpoint_path} holds {settings}: {remedy}") from error
        keep_descriptions(learner, content.get("hyper_parameters", {}), kwargs.keys())
        return learner

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what loading compares and goes on with, and what the learner is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= describe(cast("MetaLearner", self))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let loggers count meta-steps: by Lightning's own count some resumptions are one too high, others too low."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def on_train_start(self) -> None:
        """Start the clock where an interrupted run stopped it."""
        super().on_train_start()
        self._clock = time.perf_counter() - self.train_seconds

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count meta-steps and their time."""
        self.meta_steps = self.trainer.global_step
        self.train_seconds = time.perf_counter() - self._clock

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this learner, and go on with its counts."""
        restore(cast("MetaLearner", self), checkpoint)


def describe(learner: "MetaLearner") -> dict[str, Any]:
    """What is added to a learner's checkpoint, plain data all of it."""
    chunk = learner.task_map.chunk
    return {
        "method": public_path(type(learner)),
        "trained_on": describe_given(learner) or learner.trained_on,
        "max_steps": learner.trainer.max_steps,
        "train_seconds": learner.train_seconds,
        "task_chunk": chunk.size if chunk.tuned else None,
        "fused": learner.task_map.fusion.chosen,
        "fused_evaluation": learner.evaluation.fusion.chosen,
        "not_plain": sorted(learner.not_plain),
    }


def restore(learner: "MetaLearner", checkpoint: dict[str, Any]) -> None:
    """Check that a checkpoint belongs to a learner, say which settings are not its, and go on with its counts.

    Args:
        learner: that is to take over the checkpoint.
        checkpoint: as Lightning reads it.
    """
    check_method(type(learner), learner.trained_alike, checkpoint.get("method"))
    if learner.any_ways and ends_with_linear(learner.backbone):
        learner.head.resize(named("backbone", checkpoint["state_dict"]))
    trained, given = checkpoint.get("trained_on", {}), describe_given(learner)
    try:
        check_tensors(learner.state_dict(), checkpoint["state_dict"])
    except MetaLearningError:
        if given:
            check_same_tasks(learner, trained, given)  # which says it better
        raise
    if given:
        check_same_inputs(trained, given, learner.trainer.state.fn == "fit")
    check_defaults(set(checkpoint.get("not_plain", [])) - learner.not_plain)
    if learner._trainer is not None:
        trainer = learner.trainer
        training = trainer.state.fn == "fit"
        changed = list(changed_settings(checkpoint.get("hyper_parameters", {}), learner.hparams))
        if training:
            scheduled, source = learner._lr_scheduler is not None, getattr(trainer, "datamodule", None)
            check_resumable(checkpoint, source, trainer.max_steps, scheduled)
            check_outer_settings(changed)
            own = learner._optimizer(learner.parameters()).param_groups
            check_outer_state(checkpoint["optimizer_states"][0]["param_groups"], own, scheduled)
            learner.evaluation.fusion.restore(checkpoint.get("fused_evaluation"))
        _report(changed, training)
        if isinstance(trainer.precision_plugin, DoublePrecision):
            learner.double()  # which Lightning does after loading, when the weights were rounded to float32
    learner.meta_steps, learner.trained_on = checkpoint.get("global_step", 0), trained
    # An early best checkpoint, tested after the fit, does not shorten the run.
    learner.train_seconds = max(learner.train_seconds, checkpoint.get("train_seconds", 0.0))
    learner.task_map.chunk.restore(checkpoint.get("task_chunk"))
    learner.task_map.fusion.restore(checkpoint.get("fused"))


def changed_settings(saved: Any, own: Any, name: str = "") -> Iterator[Changed]:
    """Settings in which a checkpoint and a learner differ, among those that both know.

    Args:
        saved: hyperparameters of the checkpoint, plain data.
        own: hyperparameters of the learner.
        name: of the setting that they are the value of.
    """
    if isinstance(saved, Mapping) and isinstance(own, Mapping):
        for key in saved.keys() & own.keys() - _WITHOUT_EFFECT:
            yield from changed_settings(saved[key], own[key], f"{name}.{key}".lstrip(".").replace(".init_args", ""))
    elif _plain(saved) != _plain(own):
        shown = _shown(saved), _shown(own)
        yield Changed(f"model.{name}", *(shown if shown[0] != shown[1] else map(str, (saved, own))))  # of other modules


def _plain(value: Any) -> Any:
    """Tuples as the lists that files make of them; classes of this package by name, as they move between modules."""
    if isinstance(value, str) and value.startswith("lightning_meta."):
        return value.rpartition(".")[2]
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    """A class or function by its name, anything else as it is."""
    value = value.get("class_path", value) if isinstance(value, Mapping) else value
    return value.rpartition(".")[2] if isinstance(value, str) else str(value)


def _report(changed: list[Changed], training: bool) -> None:
    """Say which settings are taken from where."""
    shown = [one for one in changed if training or one.name.split(".")[1] not in _OF_TRAINING]
    if shown:
        differences = ", ".join(f"{one.name} {one.own} (in the checkpoint {one.saved})" for one in sorted(shown))
        rank_zero_info(f"Weights and learned rates come from the checkpoint, settings do not: {differences}")


def describe_given(learner: "MetaLearner") -> dict[str, Any]:
    """What a checkpoint says of the data that it was trained on, so that a person can use it without them.

    Returns:
        The data module's name, ways and shots of its tests, the support rows of such a task, the shape of an input, and
        how a picture becomes one, where inputs are pictures; nothing without a data module.
    """
    source = getattr(learner._trainer, "datamodule", None)
    if not isinstance(source, EpisodeSource):
        return {}
    shots, preprocessing = source.shots_in("test"), source.preprocessing
    return {
        "data": type(source).__name__,
        "ways": source.ways,
        "shots": shots,
        "rows": source.ways * shots,
        "inputs": learner.input_shape,
        "preprocessing": None if preprocessing is None else preprocessing.plain(),
    }
