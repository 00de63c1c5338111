"""The map over tasks: vectorised in chunks, the meta-gradient accumulated, so that memory depends on the chunk."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode
from lightning_meta.params import Params, map_params

OuterLoss = Callable[[Params, Episode, Any], tuple[Tensor, Any]]


class MetaGradient(NamedTuple):
    """What one meta-step needs: the loss of every task, the reduced gradient, and what outlives the step."""

    losses: Tensor  # (tasks,)
    grads: Params
    carry: Any


def map_tasks(function: Callable[..., Any], in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """``torch.func.vmap``, or a plain call where there is one task only, so that any module runs in a loop."""
    mapped = [arg for arg, dim in zip(args, in_dims, strict=True) if dim == 0]
    if len(pytree.tree_leaves(mapped)[0]) > 1:
        return torch.func.vmap(function, in_dims)(*args)
    single = [pytree.tree_map(lambda leaf: leaf[0], a) if dim == 0 else a for a, dim in zip(args, in_dims, strict=True)]
    return pytree.tree_map(lambda leaf: leaf[None], function(*single))


def meta_gradient(
    outer_loss: OuterLoss,
    params: Params,
    episode: Episode,
    carry: Any,
    *,
    chunk: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    serial: bool = False,
) -> MetaGradient:
    """Gradient of the outer loss over a batch of tasks.

    Args:
        outer_loss: function of (params, one task, carry) that returns the task's loss and its new carry.
        params: where to take the gradient.
        episode: the tasks.
        carry: what outlives a meta-step without being a parameter, a pytree of tensors; every task starts from it, and
            the mean over tasks of what they return is the new one.
        chunk: tasks that are vectorised together; None for all, 1 for a plain loop.
        reduction: ``mean`` or ``sum`` over tasks.
        serial: tasks run one after another, each starting from the carry that the one before it left.
    """

    def total(params: Params, tasks: Episode, carry: Any) -> tuple[Tensor, tuple[Tensor, Any]]:
        losses, carries = map_tasks(outer_loss, (None, 0, None), params, tasks, carry)
        return losses.sum(), (losses.detach(), pytree.tree_map(Tensor.detach, carries))

    count = len(episode.number)
    losses, sums, carries = [], None, []
    for tasks in episode.chunks(1 if serial else chunk):
        grads, (chunk_losses, chunk_carry) = torch.func.grad(total, has_aux=True)(params, tasks, carry)
        losses.append(chunk_losses)
        sums = grads if sums is None else map_params(torch.add, sums, grads)
        if serial:
            carry = pytree.tree_map(lambda leaf: leaf[0], chunk_carry)
        else:
            carries.append(pytree.tree_map(lambda leaf: leaf.sum(0), chunk_carry))
    assert sums is not None, "a training batch holds at least one task on every rank"
    if reduction == "mean":
        sums = map_params(lambda grad: grad / count, sums)
    if not serial:
        carry = pytree.tree_map(lambda *leaves: sum(leaves) / count, carries[0], *carries[1:])
    return MetaGradient(torch.cat(losses), sums, carry)


class _WithGradient(torch.autograd.Function):
    """The identity on a loss, with gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors[:count])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        return None, None, *[None] * ctx.count, *(scale * grad for grad in ctx.saved_tensors)


def with_gradient(loss: Tensor, grads: Params, params: Params) -> Tensor:
    """A scalar of value ``loss`` whose backward pass gives ``params`` the gradients ``grads``, times what scales it.

    So Lightning's automatic optimization (DDP's all-reduce, the scaler of mixed precision, accumulation) stays in play.
    """
    return _WithGradient.apply(loss, len(grads), *grads.values(), *(params[name] for name in grads))
