"""What is checked of Lightning's callbacks, before they change anything."""

import math

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)

from lightning_meta.errors import MetaLearningError

_REMEDIES: dict[tuple[type[Callback], ...], str] = {
    (LearningRateFinder, BatchSizeFinder): (
        "which looks for a number of its own to set in the learner: leave it out, and try values of "
        "model.optimizer.lr or data.meta_batch_size with `lightning-meta sweep`"
    ),
    (BaseFinetuning,): (
        "which freezes parameters and lets them learn later, but what the inner loop adapts is fixed before training: "
        "leave it out, and freeze with requires_grad_(False) before the learner is made, or with the setting `frozen` "
        "of the backbone Pretrained"
    ),
    (ModelPruning,): (
        "which lets layers compute their weights again whenever they run, outside of what the inner loop "
        "differentiates: leave it out, and prune the network with torch.nn.utils.prune after the training"
    ),
}


def check_callbacks(callbacks: list[Callback]) -> None:
    """Refuse callbacks that look for what a learner has elsewhere, or change what it has fixed."""
    for callback in callbacks:
        for kinds, remedy in _REMEDIES.items():
            if isinstance(callback, kinds):
                raise MetaLearningError(f"trainer.callbacks holds {type(callback).__name__}, {remedy}")


def check_averaging(trainer: Trainer) -> None:
    """Refuse Lightning's averaging over epochs where it would put untrained weights in the place of the trained ones.

    It takes in the weights at the start of every epoch from ``swa_epoch_start`` on, and hands out their mean at the end
    of the last of ``max_epochs``.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging):
            _check_averaging_settings(callback, len(trainer.optimizers[0].param_groups))
            _check_epochs(callback, trainer)


def _check_epochs(callback: StochasticWeightAveraging, trainer: Trainer) -> None:
    wanted = math.inf if trainer.max_epochs in (None, -1) else int(trainer.max_epochs or 0)
    batches, accumulated = trainer.num_training_batches, trainer.accumulate_grad_batches
    steps = batches if math.isinf(batches) else math.ceil(batches / accumulated)  # of an epoch
    possible = math.inf if trainer.max_steps == -1 else max(1, math.ceil(trainer.max_steps / steps))
    first = max(callback.swa_start, 1) + 1  # the weights at the start of the first epoch are untrained
    if first <= min(possible, wanted) and (math.isinf(wanted) or possible >= wanted):
        return
    ends = f"{min(possible, wanted)}" + (f" of {wanted}" if possible < wanted < math.inf else "")
    raise MetaLearningError(
        f"trainer.callbacks holds StochasticWeightAveraging, which averages the weights of several epochs, from epoch "
        f"{first} on, but the run ends in epoch {ends}, so that the training would be lost: set "
        "trainer.limit_train_batches to the meta-steps of an epoch and trainer.max_epochs to the number of epochs, or "
        "take EMAWeightAveraging, which needs neither"
    )


def _check_averaging_settings(callback: StochasticWeightAveraging, groups: int) -> None:
    """Refuse settings of which torch would complain in the midst of the training, or not at all."""
    rates = callback._swa_lrs
    name, expected = "swa_lrs", f"a finite number, or a list of as many as the optimizer has groups ({groups})"
    value: object = rates
    wrong = isinstance(rates, list) and len(rates) != groups
    wrong = wrong or not all(math.isfinite(rate) for rate in (rates if isinstance(rates, list) else [rates]))
    if not wrong and callback._annealing_epochs < 0:
        name, value, expected, wrong = "annealing_epochs", callback._annealing_epochs, "at least 0", True
    if not wrong and callback._annealing_strategy not in ("cos", "linear"):
        name, value, expected, wrong = "annealing_strategy", callback._annealing_strategy, "cos or linear", True
    if not wrong and callback._device is not None:
        try:
            torch.empty(0, device=callback._device)
        except (RuntimeError, AssertionError):
            name, value, expected, wrong = "device", callback._device, "a device of this machine, or null", True
    if wrong:
        raise MetaLearningError(
            f"{name} of StochasticWeightAveraging among trainer.callbacks is {value}, expected {expected}"
        )
