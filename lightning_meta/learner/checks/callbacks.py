"""What is checked of Lightning's callbacks, before they change anything."""

import math
from collections.abc import Iterator

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from pytorch_lightning.utilities import rank_zero_warn

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.run_length import epochs_begun, max_epochs

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


_AVERAGES = (
    "trainer.callbacks holds StochasticWeightAveraging, which averages the weights at the start of several epochs"
)
_EPOCHS = (
    "set trainer.limit_train_batches to the meta-batches of an epoch, trainer.max_epochs to the number of epochs, and "
    "trainer.max_steps to their meta-steps, or take EMAWeightAveraging, which needs none of them"
)


def check_callbacks(trainer: Trainer) -> None:
    """Refuse callbacks that look for what a learner has elsewhere, change what it has fixed, or need epochs."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kinds, remedy in _REMEDIES.items():
            if isinstance(callback, kinds):
                raise MetaLearningError(f"trainer.callbacks holds {type(callback).__name__}, {remedy}")
        if isinstance(callback, StochasticWeightAveraging) and trainer.state.fn == "fit":
            start = callback._swa_epoch_start
            if isinstance(start, float) and trainer.max_epochs == -1:
                raise MetaLearningError(
                    f"{_AVERAGES} and whose swa_epoch_start {start:g} is a share of trainer.max_epochs, but that is "
                    f"-1: {_EPOCHS}"
                )


def check_averaging(trainer: Trainer) -> None:
    """Refuse settings of Lightning's averaging over epochs, and runs too short for it.

    It takes in the weights at the start of every epoch from ``swa_epoch_start`` on, and hands out their mean at the end
    of the last of ``max_epochs``; those of before, where it took in none.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging):
            groups = len(trainer.optimizers[0].param_groups)
            for name, value, expected in _wrong_settings(callback, groups):
                raise MetaLearningError(
                    f"{name} of StochasticWeightAveraging among trainer.callbacks is {value}, expected {expected}"
                )
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # which is too short for any average
                _check_epochs(callback, trainer)


def warn_without_average(trainer: Trainer) -> None:
    """Say of a run that ended early, by its time or by another callback, that its weights are not an average."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            what = f"The run ended in epoch {trainer.current_epoch}, and StochasticWeightAveraging had not averaged yet"
            if trainer.current_epoch < max_epochs(trainer) < math.inf:
                rank_zero_warn(f"{what}: the weights are those of the last meta-step")
            elif callback.n_averaged is None and not callback._init_n_averaged:
                rank_zero_warn(f"{what}, but put back the weights from before the training: take the last checkpoint")


def _check_epochs(callback: StochasticWeightAveraging, trainer: Trainer) -> None:
    wanted, begun = max_epochs(trainer), epochs_begun(trainer, trainer.num_training_batches)
    first = max(callback.swa_start, 1) + 1  # the weights at the start of the first epoch are untrained
    cut_short = begun < wanted < math.inf
    if first <= begun and not cut_short:
        return
    ends, lost = (f"{begun} of {wanted:g}", "nothing") if cut_short else (f"{begun}", "no trained weights")
    raise MetaLearningError(
        f"{_AVERAGES}, from epoch {first} on, but the run ends in epoch {ends}, so that {lost} would be averaged: "
        f"{_EPOCHS}"
    )


def _wrong_settings(callback: StochasticWeightAveraging, groups: int) -> Iterator[tuple[str, object, str]]:
    """Settings of which torch would complain in the midst of the training, or not at all, with what is expected."""
    rates = callback._swa_lrs if isinstance(callback._swa_lrs, list) else [callback._swa_lrs] * groups
    if len(rates) != groups or not all(map(math.isfinite, rates)):
        expected = f"a finite number, or a list of as many as the optimizer has groups ({groups})"
        yield "swa_lrs", callback._swa_lrs, expected
    if callback._annealing_epochs < 0:
        yield "annealing_epochs", callback._annealing_epochs, "at least 0"
    if callback._annealing_strategy not in ("cos", "linear"):
        yield "annealing_strategy", callback._annealing_strategy, "cos or linear"
    try:
        torch.empty(0, device=callback._device)
    except (RuntimeError, AssertionError):
        yield "device", callback._device, "a device of this machine, or null"
