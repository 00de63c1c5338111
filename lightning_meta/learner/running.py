"""How a network is run: at other weights than its own, in full precision, by both query protocols."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, Predictions
from lightning_meta.mapping import batches_of, exact_attention, exact_embedding, exact_recurrence, vmap_with_draws
from lightning_meta.params import Params, call

_MAX_ROWS = 512  # in one batch of a non-transductive evaluation, which bounds its memory


def run_module(module: nn.Module, weights: Params, *inputs: Tensor) -> Tensor:
    """The output of ``module`` at ``weights``, in float32 at least; second derivatives are exact."""
    with exact_attention(), exact_embedding(module), exact_recurrence(module):
        return at_least_float32(call(module, weights, *inputs))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it, dropout and its like are off, as ``module.eval()`` says; each part is then put back to its mode."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


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
    support = run(task.support_x)
    if len(task.query_x) == 0:
        return Predictions(support, support[:0], support[:0])
    return Predictions(support, run(task.query_x), run_alone(run, task.support_x, task.query_x, vectorised))


def run_alone(run: Callable[[Tensor], Tensor], support_x: Tensor, x: Tensor, vectorised: bool = True) -> Tensor:
    """Outputs for the rows of ``x``, each in one batch with the support set and no other row.

    Args:
        run: function of a batch of rows.
        support_x: the support set, (support rows, ...).
        x: (rows, ...).
        vectorised: whether rows are mapped by ``torch.func.vmap``.

    Returns:
        Shape (rows, outputs).
    """

    def alone(row: Tensor) -> Tensor:
        return run(torch.cat([support_x, row[None]]))[-1]

    if x.shape[0] == 0:
        return run(support_x)[:0]
    if not vectorised or (not torch.compiler.is_exporting() and len(x) == 1):  # mapping one row would double its time
        return torch.stack([alone(row) for row in x])
    rows = len(support_x) + 1
    if torch.compiler.is_exporting():  # where vmap and len() would make the number of rows a constant
        batches = torch.cat([support_x.expand(x.shape[0], *support_x.shape), x[:, None]], 1)
        with batches_of(rows):
            return run(batches.flatten(0, 1)).unflatten(0, (-1, rows))[:, -1]
    return cast(Tensor, vmap_with_draws(alone, chunk_size=max(_MAX_ROWS // rows, 1))(x))


def predict_queries(predict: Callable[[Episode], Predictions], episode: Episode) -> dict[str, Tensor]:
    """Outputs for the queries after the last inner step, with their targets, each (tasks, queries, ...)."""
    if not episode.tasks:  # the list has no task left for this rank
        return {}
    with torch.inference_mode(False):
        outputs = predict(Episode(*(tensor.clone() for tensor in episode)))
    return {"task_ids": episode.task_ids, "outputs": outputs.query[:, -1], "targets": episode.query_y}
