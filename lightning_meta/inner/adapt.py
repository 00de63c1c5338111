"""The inner loop, written once for every algorithm."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_meta.inner.optimizers import InnerOptimizer
from lightning_meta.inner.scaling import loss_scale, unscaled
from lightning_meta.params import Params


def adapt(
    loss: Callable[[Params, Tensor], Tensor],
    optimizer: InnerOptimizer,
    fast: Params,
    meta: Params,
    order: Tensor,
    state: Any = None,
) -> Iterator[tuple[Params, Any]]:
    """Adapt ``fast`` step by step; yields weights and optimizer state before the first step and after each.

    The whole loop is differentiable in ``fast``, ``meta`` and ``state``; hand in detached ones to hold the inner
    gradients constant.

    Args:
        loss: inner loss as a function of weights and of the support rows of a step.
        optimizer: the inner rule.
        fast: weights to start from.
        meta: meta-learned parameters of the rule.
        order: support rows of every step, shape (steps, batch).
        state: optimizer state to start from; None for a fresh one.
    """
    state = optimizer.init(fast) if state is None else state
    scale = loss_scale(order.device)

    def scaled_loss(fast: Params, rows: Tensor) -> Tensor:
        return loss(fast, rows) * scale

    yield fast, state
    for step, rows in enumerate(order):
        grads = unscaled(torch.func.grad(scaled_loss)(fast, rows), scale)
        fast, state = optimizer.update(grads, state, fast, meta, step)
        yield fast, state


def last(steps: Iterable[tuple[Params, Any]]) -> tuple[Params, Any]:
    """Weights and state after the last step, keeping none of those before."""
    (final,) = deque(steps, maxlen=1)
    return final
