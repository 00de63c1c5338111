"""What is checked of the trainer and of every meta-step."""

from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.strategies import Strategy

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping import MetaGradient

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

OUTER_REMEDY = "Lower the inner or outer learning rate, or clip with trainer.gradient_clip_val"


def check_trainer(learner: "MetaLearner", trainer: Trainer) -> None:
    """Check the settings of the trainer that a learner depends on."""
    carries = learner.carry_per_task or bool(list(learner.carry.buffers()))
    check_ranks(learner.serial, learner.carry_per_task, type(learner).__name__, trainer.world_size)
    check_accumulation(carries, trainer.accumulate_grad_batches)


def check_monitor(callbacks: list[Checkpoint], episode: Episode) -> None:
    """Refuse to wait for an accuracy that real targets do not have."""
    monitors = [callback.monitor for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    if "val_accuracy" in monitors and episode.support_y.is_floating_point():
        raise MetaLearningError(
            "checkpoint.monitor is val_accuracy, but these data have real targets, of which only a loss is measured: "
            "set checkpoint.monitor to val_loss and checkpoint.mode to min"
        )


def check_accumulation(carries: bool, batches: int) -> None:
    """Refuse to accumulate batches where each would start from the moments that the one before it left."""
    if carries and batches > 1:
        raise MetaLearningError(
            f"trainer.accumulate_grad_batches is {batches}, but the inner optimizer's moments are carried from one "
            "to the next: raise data.meta_batch_size instead (model.task_chunk bounds the memory), or set "
            "model.carry_moments to false"
        )


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
    result: MetaGradient, episode: Episode, step: int, strategy: Strategy, remedy: str = OUTER_REMEDY
) -> None:
    """Stop before parameters or checkpoints are spoilt, on all ranks together, and say the algorithm's remedy."""
    finite = result.losses.isfinite()
    entries = torch.stack([grad.sum() for grad in result.grads.values()])
    sound = bool(finite.all() & entries.isfinite().all())
    if strategy.reduce_boolean_decision(sound):
        return
    if not finite.all():
        where = f"the outer loss of task(s) {episode.task_ids[~finite].tolist()[:5]} is not finite"
    else:
        where = "the meta-gradient is not finite" if not sound else "another rank met a value that is not finite"
    raise MetaLearningError(f"meta-step {step}: {where}. The last checkpoint is untouched. {remedy}")
