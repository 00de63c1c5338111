"""The inner loop, written once for every algorithm."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_meta.inner.optimizers import InnerOptimizer
from lightning_meta.mapping.loss_scale import loss_scale, unscaled
from lightning_meta.params import Params, detach


def unroll(
    loss: Callable[[Params, Tensor, int], Tensor],
    optimizer: InnerOptimizer,
    fast: Params,
    meta: Params,
    order: Tensor,
    state: Any = None,
    second_order: bool = True,
    first: Any = 0,
) -> Iterator[tuple[Params, Any]]:
    """Run the inner loop from ``fast``; yields weights and optimizer state before the first step and after each.

    The whole loop is differentiable in ``fast``, ``meta`` and ``state``.

    Args:
        loss: inner loss as a function of weights, of the support rows of a step and of the step's number.
        optimizer: the inner rule.
        fast: weights to start from.
        meta: meta-learned parameters of the rule.
        order: support rows of every step, shape (steps, batch).
        state: optimizer state to start from; None for a fresh one.
        second_order: whether the inner gradients are differentiated, too. Otherwise they are constants, memory hardly
            grows with the steps, and the derivative goes through the rule's own arithmetic alone.
        first: number of the first step.
    """
    state = optimizer.init(fast) if state is None else state
    scale = loss_scale(order.device)

    def scaled_loss(fast: Params, rows: Tensor, step: int) -> Tensor:
        return loss(fast, rows, step) * scale

    yield fast, state
    for place, rows in enumerate(order):
        step = first + place
        # Taken at detached weights, a constant gradient leaves no graph behind.
        grads = unscaled(torch.func.grad(scaled_loss)(fast if second_order else detach(fast), rows, step), scale)
        grads = grads if second_order else detach(grads)
        fast, state = optimizer.update(grads, state, fast, meta, step)
        yield fast, state


def last(steps: Iterable[tuple[Params, Any]]) -> tuple[Params, Any]:
    """Weights and state after the last step, keeping none of those before."""
    (final,) = deque(steps, maxlen=1)
    return final
