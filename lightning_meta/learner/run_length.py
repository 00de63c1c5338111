"""How long a run is, in epochs and meta-steps, as far as its trainer says so."""

import itertools
import math
from collections.abc import Iterator

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler


def max_epochs(trainer: Trainer) -> float:
    """The number of epochs that ends the run; infinity where only meta-steps do."""
    return math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)


def epoch_ends(trainer: Trainer, batches: int) -> Iterator[int]:
    """Meta-steps that are over at the end of each epoch that the run begins.

    Args:
        trainer: whose ``max_steps`` and ``max_epochs`` end the run.
        batches: meta-batches of an epoch.
    """
    steps = 0
    for epoch in itertools.count():
        if epoch >= max_epochs(trainer) or 0 <= trainer.max_steps <= steps:
            return
        steps += math.ceil(batches / _accumulated(trainer, epoch))
        yield min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps


def epochs_begun(trainer: Trainer, batches: float) -> float:
    """The number of epochs, of so many meta-batches each, that the run begins; the last may be cut short."""
    if math.isinf(batches):
        return min(1, max_epochs(trainer))
    if trainer.max_steps == -1:
        return max_epochs(trainer)
    return sum(1 for _ in epoch_ends(trainer, int(batches)))


def foreseen_meta_steps(trainer: Trainer) -> int:
    """Meta-steps of the run, before its data are loaded; 0 where only the length of a person's own loader tells."""
    if math.isinf(max_epochs(trainer)):
        return max(trainer.max_steps, 0)
    if not type(getattr(trainer, "datamodule", None)).__module__.startswith("lightning_meta."):
        return 0
    batches = max(trainer.max_steps, 0) * trainer.accumulate_grad_batches  # which this package's data modules give
    limit = trainer.limit_train_batches
    batches = min(limit, batches) if isinstance(limit, int) else int((1.0 if limit is None else limit) * batches)
    return max(epoch_ends(trainer, batches), default=0)


def evaluation_batches_left(trainer: Trainer) -> float:
    """Batches of tasks that the run still evaluates, about, without a test that follows it."""
    if trainer.state.fn != "fit":
        batches = {"validate": trainer.num_val_batches, "predict": trainer.num_predict_batches}
        return float(sum(batches.get(trainer.state.fn or "", trainer.num_test_batches)))
    left = (trainer.estimated_stepping_batches - trainer.global_step) * trainer.accumulate_grad_batches
    return sum(trainer.num_val_batches) * left / max(trainer.val_check_batch or 1, 1)


def _accumulated(trainer: Trainer, epoch: int) -> int:
    """Meta-batches whose gradients make one meta-step in this epoch."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches
