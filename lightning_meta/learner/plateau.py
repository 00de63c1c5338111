"""The schedule that waits for a figure of the validation: one step for every validation of a fit."""

import sys
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.errors import MetaLearningError

_NEVER = sys.maxsize  # batches between two steps that Lightning itself would make


class StepAtValidations(Callback):
    """Tells a plateau schedule each validation's figure, before the checkpoint of that validation is saved.

    Lightning steps it at batches that it counts within the epoch, which are not those of its validations in a run of
    several epochs or with accumulated gradients. A validation before the first meta-step does not count.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One step of the schedule.

        Raises:
            MetaLearningError: the figure has not been logged.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or trainer.global_step == 0:
            return
        for configured in trainer.lr_scheduler_configs:
            if configured.reduce_on_plateau and configured.frequency == _NEVER:
                monitor, logged = str(configured.monitor), trainer.callback_metrics
                if monitor not in logged:
                    raise MetaLearningError(
                        f"model.lr_scheduler.monitor is {monitor}, which nothing has logged by the validation after "
                        f"meta-step {trainer.global_step}: take one of {', '.join(sorted(logged))}"
                    )
                pl_module.lr_scheduler_step(configured.scheduler, logged[monitor])


def step_at_validations(scheduler: ReduceLROnPlateau, trainer: Trainer) -> dict[str, Any]:
    """What Lightning is told of a plateau schedule, whose steps a callback of the trainer makes.

    Args:
        scheduler: that waits for its ``monitor``.
        trainer: that gets the callback, once.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not any(isinstance(callback, StepAtValidations) for callback in callbacks):
        callbacks.insert(0, StepAtValidations())
    return {"monitor": scheduler.monitor, "frequency": _NEVER}
