"""How a network is run: at other weights than its own, in full precision, by both query protocols."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, Predictions
from lightning_meta.mapping import exact_attention
from lightning_meta.params import Params, call

_MAX_ROWS = 512  # in one batch of a non-transductive evaluation, which bounds its memory


def run_module(module: nn.Module, weights: Params, *inputs: Tensor) -> Tensor:
    """The output of ``module`` at ``weights``, with exact second derivatives of attention, in float32 at least."""
    with exact_attention():
        return at_least_float32(call(module, weights, *inputs))


def at_least_float32(outputs: Tensor) -> Tensor:
    """Losses, distances and what is learned at the end of a network are too small for half precision."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def run_both_protocols(run: Callable[[Tensor], Tensor], task: Episode, vectorised: bool = True) -> Predictions:
    """Outputs for support set and queries, these all in one batch and each alone beside the support set.

    Args:
        run: function of a batch of rows.
        task: one task.
        vectorised: whether the queries that are taken alone are mapped by ``torch.func.vmap``.

    Returns:
        Tensors (rows, outputs).
    """

    def alone(x: Tensor) -> Tensor:
        return run(torch.cat([task.support_x, x[None]]))[-1]

    support = run(task.support_x)
    if len(task.query_x) == 0:
        return Predictions(support, support[:0], support[:0])
    query = run(task.query_x)
    if not vectorised:
        return Predictions(support, query, torch.stack([alone(x) for x in task.query_x]))
    together = max(_MAX_ROWS // (len(task.support_x) + 1), 1)
    return Predictions(support, query, torch.func.vmap(alone, chunk_size=together)(task.query_x))
