"""What is checked of the outer optimizer: before training, and at every step that it makes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.verdicts import Verdicts
from lightning_meta.mapping import magnitudes

_ROUNDING = 1e-9  # of the first rate: how far below 0 a schedule that ends at 0 may come


def check_epsilon(optimizer: Optimizer) -> None:
    """Refuse an optimizer that would divide by zero, since what it adds to the divisor is rounded to 0."""
    for group in optimizer.param_groups:
        epsilon = group.get("eps")
        for kind in {parameter.dtype for parameter in group["params"]}:
            if isinstance(epsilon, float) and epsilon > 0 and not torch.tensor(epsilon, dtype=kind):
                raise MetaLearningError(
                    f"model.optimizer.eps is {epsilon}, which {kind}, the precision of the weights, rounds to 0, so "
                    f"that {type(optimizer).__name__} would divide by 0: set it to 1e-4, or set trainer.precision to "
                    "16-mixed or bf16-true"
                )


def check_rates(optimizer: Optimizer, step: int, source: Callable[[], str]) -> None:
    """Refuse a rate that climbs or spoils the weights, and a momentum that a schedule has moved out of its range.

    Args:
        optimizer: the outer optimizer.
        step: the meta-step that would use its rates.
        source: gives the setting that they come from, for the message.
    """
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if rate is None:  # the optimizer finds its own
            continue
        lowest = -_ROUNDING * abs(group.get("initial_lr", 0.0))
        largest = max((torch.finfo(parameter.dtype).max for parameter in group["params"]), default=math.inf)
        if not _within(rate, lowest, largest):
            raise MetaLearningError(
                f"{source()} gives meta-step {step} a rate of {_shown(rate)}, "
                "expected a finite number that is at least 0"
            )
        momentum = _momentum(group)
        if momentum is not None and momentum != _momentum(optimizer.defaults) and not _within(momentum, 0.0, 1.0):
            raise MetaLearningError(
                f"{source()} gives meta-step {step} a momentum of {_shown(momentum)}, expected at least 0 and below 1"
            )


def check_weights(module: nn.Module, optimizer: Optimizer, step: int, remedy: str, verdicts: Verdicts) -> None:
    """Stop after an update that has spoilt the weights, before anything scores or keeps them.

    Every rank does so by itself: their weights are the same, or they are trained apart.

    Args:
        module: whose parameters they are.
        optimizer: that has just updated them.
        step: the meta-step.
        remedy: what to do.
        verdicts: which may tell of it late.
    """
    groups = [group["params"] for group in optimizer.param_groups]
    updated = [parameter for group in groups for parameter in group if parameter.requires_grad]
    if not updated:
        return

    def refuse() -> None:
        spoilt = {id(parameter) for parameter in updated if not parameter.isfinite().all()}
        if not spoilt:  # finite values whose sum is not
            return
        names = [name for name, parameter in module.named_parameters() if id(parameter) in spoilt]
        zero = any(group.get("eps") == 0 for group in optimizer.param_groups)
        first = "Set model.optimizer.eps above 0, since a gradient of 0 is divided by 0. Otherwise: " if zero else ""
        raise MetaLearningError(
            f"meta-step {step}: the update left values that are not finite in {', '.join(names[:3])}. "
            f"The last checkpoint is untouched. {first}{remedy}"
        )

    with torch.no_grad():
        verdicts.give("weights", magnitudes(updated), refuse)


def _momentum(group: dict[str, Any]) -> Any:
    """What a schedule of the rate may move as well; None where the optimizer has none."""
    betas: Any = group.get("betas")
    return betas[0] if hasattr(betas, "__getitem__") else group.get("momentum")


def _within(value: Any, lowest: float, below: float) -> bool:
    """Whether it is a real number in this range."""
    return not isinstance(value, str | complex) and lowest <= float(value) < below


def _shown(value: Any) -> str:
    return f"{float(value):g}" if isinstance(value, float | int | torch.Tensor) else repr(value)
