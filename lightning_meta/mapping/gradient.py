"""The map over tasks: vectorised in chunks, the meta-gradient accumulated, so that memory depends on the chunk."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode
from lightning_meta.mapping.convolution import RoutedConvolutions
from lightning_meta.mapping.loss_scale import loss_scale, unscaled
from lightning_meta.mapping.randomness import Randomness, vmap_with_draws
from lightning_meta.params import Params, map_params

OuterLoss = Callable[[Params, Episode, Any, Tensor], tuple[Tensor, Any]]


class MetaGradient(NamedTuple):
    """What one meta-step needs: the loss of every task, the reduced gradient, and what outlives the step."""

    losses: Tensor  # (tasks,)
    grads: Params
    carry: Any

    def reduced(self, reduction: Literal["mean", "sum"], ranks: int, accumulated: int) -> tuple[Tensor, Params]:
        """The outer loss and its gradient over all tasks, of which every rank and accumulated batch holds its part."""
        if reduction == "mean":
            return self.losses.mean(), self.grads
        # DDP takes the mean over ranks, and Lightning over accumulated batches.
        return self.losses.sum() * ranks, map_params(lambda grad: grad * (ranks * accumulated), self.grads)


# Of the tasks of one chunk, with the gradient summed over them, and the carry unless every task has its own.
ChunkGradient = Callable[[Params, Episode, Any, Tensor], MetaGradient]


def map_tasks(
    function: Callable[..., Any], in_dims: tuple[int | None, ...], *args: Any, randomness: Randomness = "different"
) -> Any:
    """``torch.func.vmap``, or a plain call where there is one task only, so that any module runs in a loop."""
    mapped = [arg for arg, dim in zip(args, in_dims, strict=True) if dim == 0]
    if len(pytree.tree_leaves(mapped)[0]) > 1:
        return vmap_with_draws(function, in_dims, randomness=randomness)(*args)
    single = [pytree.tree_map(lambda leaf: leaf[0], a) if dim == 0 else a for a, dim in zip(args, in_dims, strict=True)]
    return pytree.tree_map(lambda leaf: leaf[None], function(*single))


def chunk_gradient(
    outer_loss: OuterLoss, carry_per_task: bool = False, randomness: Randomness = "different"
) -> ChunkGradient:
    """The gradient of ``outer_loss``, summed over the tasks of a chunk that are vectorised together.

    Args:
        outer_loss: pure function of (params, one task, carry, progress) that returns the task's loss and new carry.
        carry_per_task: whether every task has a carry of its own, with the task axis in front, which is not summed.
        randomness: whether tasks that are vectorised together draw ``different`` random numbers or the ``same``.
    """
    in_dims = (None, 0, 0 if carry_per_task else None, None)

    def gradient(params: Params, tasks: Episode, carry: Any, progress: Tensor) -> MetaGradient:
        scale = loss_scale(progress.device)

        def total(params: Params) -> tuple[Tensor, tuple[Tensor, Any]]:
            losses, carries = map_tasks(outer_loss, in_dims, params, tasks, carry, progress, randomness=randomness)
            carries = pytree.tree_map(lambda leaf: leaf.detach() if carry_per_task else leaf.detach().sum(0), carries)
            return losses.sum() * scale, (losses.detach(), carries)

        with RoutedConvolutions() if tasks.tasks > 1 else nullcontext():
            grads, (losses, carries) = torch.func.grad(total, has_aux=True)(params)
        return MetaGradient(losses, unscaled(grads, scale), carries)

    return gradient


def meta_gradient(
    gradient: ChunkGradient,
    params: Params,
    episode: Episode,
    carry: Any,
    progress: Tensor,
    *,
    chunk: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    serial: bool = False,
    carry_per_task: bool = False,
) -> MetaGradient:
    """Gradient of the outer loss over a batch of tasks, added up chunk by chunk.

    Args:
        gradient: of one chunk, `chunk_gradient`, as it is or compiled.
        params: where to take the gradient.
        episode: the tasks.
        carry: what outlives a meta-step without being a parameter, a pytree of tensors; every task starts from it, and
            the mean over tasks of what they return is the new one.
        progress: how much of the run is done, 0 to 1, a scalar.
        chunk: tasks that are vectorised together; None for all, 1 for a plain loop.
        reduction: ``mean`` or ``sum`` over tasks.
        serial: tasks run one after another, each starting from the carry that the one before it left.
        carry_per_task: every task starts from its own row of the carry, and leaves its own.
    """
    losses: list[Tensor] = []
    own_carries: list[Any] = []
    grads, mean_carry, count = None, None, episode.tasks
    for tasks in episode.chunks(1 if serial else chunk):
        part = gradient(params, tasks, _rows(carry, losses, tasks.tasks) if carry_per_task else carry, progress)
        # Whatever is kept is copied, since the next call may overwrite what this one has returned.
        losses.append(part.losses.clone())
        in_order = {name: part.grads[name] for name in params}
        grads = _add(grads, in_order, count if reduction == "mean" else 1)
        if serial or carry_per_task:
            own_carries.append(pytree.tree_map(torch.clone, part.carry))
            carry = own_carries[-1] if serial else carry
        else:
            mean_carry = _add(mean_carry, part.carry, count)
    assert grads is not None, "a training batch holds at least one task on every rank"
    if carry_per_task:
        carry = pytree.tree_map(lambda *leaves: torch.cat(leaves), *own_carries)
    elif not serial:
        carry = mean_carry
    return MetaGradient(torch.cat(losses) if len(losses) > 1 else losses[0], grads, carry)


def _add(total: Any, part: Any, divisor: int) -> Any:
    """``total`` (None: nothing yet) plus ``part`` over ``divisor``, trees of tensors, in memory of its own."""
    leaves, spec = pytree.tree_flatten(part)
    if total is None:
        return pytree.tree_unflatten(torch._foreach_div(leaves, divisor) if leaves else [], spec)
    if leaves:
        torch._foreach_add_(pytree.tree_leaves(total), leaves, alpha=1 / divisor)
    return total


def _rows(carry: Any, done: list[Tensor], count: int) -> Any:
    """The carry of the ``count`` tasks that follow those whose losses are there."""
    start = sum(map(len, done))
    return pytree.tree_map(lambda leaf: leaf[start : start + count], carry)


class _WithGradient(torch.autograd.Function):
    """The identity on a loss, with gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors[:count])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:
        return None, None, *[None] * ctx.count, *torch._foreach_mul(ctx.saved_tensors, scale)


def with_gradient(loss: Tensor, grads: Params, params: Params) -> Tensor:
    """A scalar of value ``loss`` whose backward pass gives ``params`` the gradients ``grads``, times what scales it.

    So Lightning's automatic optimization (DDP's all-reduce, the scaler of mixed precision, accumulation) stays in play.
    """
    return _WithGradient.apply(loss, len(grads), *grads.values(), *(params[name] for name in grads))
