"""What is checked of the trainer and of every meta-step."""

from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.plugins import (
    BitsandbytesPrecision,
    DeepSpeedPrecision,
    DoublePrecision,
    FSDPPrecision,
    HalfPrecision,
    Precision,
    TransformerEnginePrecision,
)
from pytorch_lightning.profilers import Profiler, PyTorchProfiler
from pytorch_lightning.strategies import Strategy

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.callbacks import check_callbacks
from lightning_meta.learner.checks.verdicts import Verdicts
from lightning_meta.mapping import MetaGradient, magnitudes

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_PLUGINS_OF_OTHERS = (
    BitsandbytesPrecision,
    DeepSpeedPrecision,
    FSDPPrecision,
    TransformerEnginePrecision,
)
_NO_PLUGIN = (
    "which exchanges or divides what the inner loop differentiates: set it to 32-true, 64-true, bf16-mixed, 16-mixed, "
    "bf16-true or 16-true, and trainer.strategy to auto or ddp"
)
OUTER_REMEDY = "Lower the inner or outer learning rate, or clip with trainer.gradient_clip_val"


def check_trainer(learner: "MetaLearner", trainer: Trainer) -> None:
    """Check the settings of the trainer that a learner depends on."""
    carries = learner.carry_per_task or bool(list(learner.carry.buffers()))
    check_ranks(learner.serial, learner.carry_per_task, type(learner).__name__, trainer.world_size)
    check_accumulation(carries, _accumulated(trainer))
    check_profiler(trainer.profiler)  # type: ignore[attr-defined]
    check_callbacks(trainer)  # also those that a learner brings itself
    check_precision(learner, trainer)
    if trainer.state.fn == "fit":
        check_run(trainer)
    check_evaluation(str(trainer.state.fn.value if trainer.state.fn else ""), trainer)


def check_precision(learner: "MetaLearner", trainer: Trainer) -> None:
    """Refuse tensors of several precisions, where the trainer does not bring all to one."""
    check_plugin(trainer.precision_plugin)
    tensors = {**dict(learner.named_parameters()), **dict(learner.backbone.named_buffers(prefix="backbone"))}
    kinds = {name: tensor.dtype for name, tensor in tensors.items() if tensor.is_floating_point()}
    if isinstance(trainer.precision_plugin, DoublePrecision | HalfPrecision):
        if len({*kinds.values()}) > 1:  # Lightning brings all to one, but only after the other checks have run it
            learner.to(torch.float64 if isinstance(trainer.precision_plugin, DoublePrecision) else torch.float32)
        return
    expected = torch.get_default_dtype()
    wrong = [name for name, kind in kinds.items() if kind != expected]
    if wrong:
        raise MetaLearningError(
            f"model.{wrong[0]} is {kinds[wrong[0]]}, but trainer.precision {trainer.precision} computes in {expected}: "
            "convert the backbone with .float(), or set trainer.precision to 64-true, which converts backbone and data"
        )


def check_plugin(plugin: Precision) -> None:
    """Refuse precisions that exchange layers, or belong to strategies that divide the weights among ranks."""
    if isinstance(plugin, _PLUGINS_OF_OTHERS):
        raise MetaLearningError(f"trainer.precision is {plugin.precision}, by {type(plugin).__name__}, {_NO_PLUGIN}")


def check_precision_name(name: str) -> None:
    """Refuse by its name a precision whose package is not even looked for."""
    if name.startswith("transformer-engine"):
        raise MetaLearningError(f"trainer.precision is {name}, {_NO_PLUGIN}")


def check_data_precision(episode: Episode, trainer: Trainer) -> None:
    """Refuse inputs of another precision than the weights', where the trainer does not convert them."""
    kind, expected = episode.support_x.dtype, torch.get_default_dtype()
    converts = isinstance(trainer.precision_plugin, DoublePrecision | HalfPrecision)
    if kind.is_floating_point and kind != expected and not converts:
        raise MetaLearningError(
            f"the data's inputs are {kind}, but trainer.precision {trainer.precision} computes in {expected}: let the "
            f"data module's `draw` give .to({expected}), or set trainer.precision to 64-true, which converts both"
        )


def check_run(trainer: Trainer) -> None:
    """Refuse flags by which a fit trains nothing, repeats tasks, or cannot tell when to validate."""
    overfit: float = trainer.overfit_batches  # type: ignore[attr-defined]
    if overfit:
        raise MetaLearningError(
            f"trainer.overfit_batches is {overfit}, but training tasks are a stream that never comes "
            "back, so there is no batch to overfit: leave it out, and take data of few classes to see a network overfit"
        )
    if trainer.limit_train_batches == 0:
        raise MetaLearningError(
            "trainer.limit_train_batches is 0, which trains nothing: leave it out, or evaluate with validate or test"
        )
    if trainer.min_steps is not None and trainer.min_steps > trainer.max_steps > 0:
        raise MetaLearningError(
            f"trainer.min_steps is {trainer.min_steps}, but trainer.max_steps is {trainer.max_steps}: raise the latter"
        )
    for name in ("gradient_clip_val", "log_every_n_steps"):
        if (getattr(trainer, name) or 0) < 0:
            raise MetaLearningError(f"trainer.{name} is {getattr(trainer, name)}, expected at least 0")
    for name in ("val_check_interval", "check_val_every_n_epoch"):
        if getattr(trainer, name, None) == 0:
            raise MetaLearningError(
                f"trainer.{name} is 0, expected at least 1: set trainer.limit_val_batches to 0 to leave validation out"
            )


def check_evaluation(function: str, trainer: Trainer) -> None:
    """Refuse to evaluate no batch at all, which would end without a word."""
    name = {"validate": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}
    if function in name and getattr(trainer, name[function]) == 0:
        raise MetaLearningError(f"trainer.{name[function]} is 0, so there is nothing to {function}: leave it out")


def check_profiler(profiler: Profiler) -> None:
    """Refuse marks that cannot be copied on the modules, whose copies are what the checks run."""
    if isinstance(profiler, PyTorchProfiler) and profiler._record_module_names:
        raise MetaLearningError(
            "trainer.profiler is PyTorchProfiler, which marks every module by its name, but a meta-step runs modules "
            "that are vectorised or copied: set its record_module_names to false (trainer.profiler.class_path "
            "PyTorchProfiler, trainer.profiler.init_args.record_module_names false)"
        )


def check_accumulation(carries: bool, batches: int) -> None:
    """Refuse to accumulate no batch, or several where each would start from the moments that the one before it left."""
    if batches < 1:
        raise MetaLearningError(
            f"trainer.accumulate_grad_batches is {batches}, expected at least 1: the number of meta-batches whose "
            "gradients make one step of the outer optimizer"
        )
    if carries and batches > 1:
        raise MetaLearningError(
            f"trainer.accumulate_grad_batches is {batches}, but the inner optimizer's moments are carried from one "
            "to the next: raise data.meta_batch_size instead (model.task_chunk bounds the memory), or set "
            "model.carry_moments to false"
        )


def _accumulated(trainer: Trainer) -> int:
    """The most batches that make one step, also by a schedule; the fewest where that is too few."""
    schedules = [c.scheduling for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    numbers = [trainer.accumulate_grad_batches, *(number for schedule in schedules for number in schedule.values())]
    return min(numbers) if min(numbers) < 1 else max(numbers)


def check_ranks(serial: bool, carry_per_task: bool, algorithm: str, ranks: int) -> None:
    """Refuse several ranks where tasks run one after another, or have what one rank's checkpoint cannot hold."""
    if carry_per_task and ranks > 1:
        raise MetaLearningError(
            f"{algorithm} keeps the weights of every task from one meta-step to the next, on one rank, but there are "
            f"{ranks}: set trainer.devices and trainer.num_nodes to 1"
        )
    if serial and ranks > 1:
        raise MetaLearningError(
            f"model.serial is true, which runs the tasks one after another on one rank, but there are {ranks}: "
            "set trainer.devices to 1 or model.serial to false"
        )


def check_divergence(
    result: MetaGradient,
    episode: Episode,
    step: int,
    strategy: Strategy,
    remedy: str = OUTER_REMEDY,
    verdicts: Verdicts | None = None,
) -> None:
    """Stop before parameters or checkpoints are spoilt, on all ranks together, and say the algorithm's remedy.

    Args:
        result: of the meta-step.
        episode: its tasks.
        step: its number.
        strategy: by which ranks agree.
        remedy: what to do.
        verdicts: which may tell of it late, where there is one rank; None to read it at once.
    """
    sizes = torch.cat([result.losses, magnitudes(result.grads.values())])
    tasks, losses = episode.task_ids, result.losses  # a verdict that is read late keeps no images

    def refuse() -> None:
        finite = losses.isfinite()
        if not finite.all():
            where = f"the outer loss of task(s) {tasks[~finite].tolist()[:5]} is not finite"
        else:
            own = not sizes.isfinite().all()
            where = "the meta-gradient is not finite" if own else "another rank met a value that is not finite"
        raise MetaLearningError(f"meta-step {step}: {where}. The last checkpoint is untouched. {remedy}")

    if verdicts is not None:
        verdicts.give("divergence", sizes, refuse)
    elif not strategy.reduce_boolean_decision(bool(sizes.isfinite().all())):
        refuse()
