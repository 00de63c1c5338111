"""What stands between a learner and a run that would spoil it."""

from typing import TYPE_CHECKING, Any, cast

from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.episode import Episode
from lightning_meta.learner.checks.callbacks import check_averaging, check_callbacks, warn_without_average
from lightning_meta.learner.checks.outer import check_rates, check_weights
from lightning_meta.learner.checks.trainer import OUTER_REMEDY, check_divergence
from lightning_meta.learner.checks.verdicts import Verdicts
from lightning_meta.learner.schedule import source_of_rates
from lightning_meta.mapping import MetaGradient

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner


class GuardedModule(LightningModule):
    """A module that refuses what would spoil its weights, and stops before spoilt ones are scored or saved."""

    def __init__(self) -> None:
        super().__init__()
        self._verdicts = Verdicts()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # which Lightning sets 46 times a meta-step, a tenth of a small one
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_callbacks(self) -> list[Callback]:
        """Bring none, and check those of the trainer before they set anything up."""
        check_callbacks(self.trainer)
        return []

    def on_fit_start(self) -> None:
        """Forget what an earlier fit has found."""
        self._verdicts = Verdicts()

    def on_train_start(self) -> None:
        """Check the callbacks that depend on the length of the run."""
        check_averaging(self.trainer)

    def on_validation_start(self) -> None:
        """Score no spoilt weights in a fit."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._verdicts.settle()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save no spoilt weights."""
        self._verdicts.settle()

    def on_train_end(self) -> None:
        """Stop at spoilt weights here at the latest, and say where a callback has not done what it is for."""
        self._verdicts.settle()
        warn_without_average(self.trainer)

    def check_divergence(self, result: MetaGradient, episode: Episode) -> None:
        """Stop at a meta-gradient that is not finite; on one GPU late, but before weights are scored or saved."""
        trainer = self.trainer
        verdicts = self._verdicts if trainer.world_size == 1 else None  # ranks agree, and so wait for each other
        check_divergence(result, episode, trainer.global_step, trainer.strategy, verdicts=verdicts)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step of the outer optimizer, between a check of its rates and one of the weights that it leaves."""
        step, learner = self.trainer.global_step, cast("MetaLearner", self)
        check_rates(optimizer, step, lambda: source_of_rates(learner._lr_scheduler))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        check_weights(self, optimizer, step, OUTER_REMEDY, self._verdicts)
        if self.trainer.world_size > 1:  # other ranks may be given these weights
            self._verdicts.settle()
