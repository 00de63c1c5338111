"""Normalisation to mean 0 and variance 1, fused, with exact derivatives of every order under ``torch.func.vmap``.

The step that batch, instance and layer norms share: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift", arXiv 1502.03167, whose section 3 also derives the first gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def normalise(x: Tensor, over: list[int], eps: float) -> Tensor:
    """``(x - mean) / sqrt(variance + eps)`` with statistics over the dimensions ``over``.

    Half precision is normalised in float32, since the variance of a few rows, and its derivatives, need the digits;
    under autocast it also comes out as float32.
    """
    if torch.compiler.is_exporting():  # an exported program holds plain operations
        return _normalise_in_batches(x, over, eps)
    half = x.dtype in (torch.float16, torch.bfloat16)
    normalised = _Normalise.apply(x.float() if half else x, over, eps)[0]
    return normalised if torch.is_autocast_enabled(x.device.type) else normalised.to(x.dtype)


@contextmanager
def batches_of(rows: int) -> Iterator[None]:
    """Within it, in an export, so many consecutive rows make one batch with statistics of its own."""
    token = _batch.set(rows)
    try:
        yield
    finally:
        _batch.reset(token)


_batch: ContextVar[int | None] = ContextVar("batch", default=None)  # rows of one; None: all of them


def _normalise_in_batches(x: Tensor, over: list[int], eps: float) -> Tensor:
    rows = _batch.get()
    if rows is None or 0 not in over:
        return _Normalise.forward(x, over, eps)[0]
    return _Normalise.forward(x.unflatten(0, (-1, rows)), [dim + 1 for dim in over], eps)[0].flatten(0, 1)


class _Normalise(Function):
    """The normalised tensor y and the scale s = 1 / sqrt(variance + eps)."""

    @staticmethod
    def forward(x: Tensor, over: list[int], eps: float) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(over, keepdim=True)
        scale = (centred.square().mean(over, keepdim=True) + eps).rsqrt()
        return centred * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.over, _ = inputs
        ctx.save_for_backward(x, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_scale: Tensor | None) -> Any:
        x, y, scale = ctx.saved_tensors
        grad_x = torch.zeros_like(x) if grad is None else _Gradient.apply(grad, x, y, scale, ctx.over)
        if grad_scale is not None:  # asked for by third derivatives alone
            grad_x = grad_x - grad_scale * scale.square() * y * (scale.numel() / x.numel())
        return grad_x, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, over: list[int], eps: float) -> Any:
        return _Normalise.apply(x.movedim(in_dims[0], 1), _beside_tasks(over), eps), (1, 1)


class _Gradient(Function):
    """The gradient s (g - mean(g) - y mean(g y)) of x, from the gradient g of y; symmetric and linear in g.

    y and s are functions of x, and all derivatives through them are accounted to x.
    """

    @staticmethod
    def forward(grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, over: list[int]) -> Tensor:
        projected = grad - grad.mean(over, keepdim=True)
        return torch.addcmul(projected, y, (grad * y).mean(over, keepdim=True), value=-1) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *tensors, ctx.over = inputs
        ctx.save_for_backward(*tensors, output)

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> Any:
        grad, x, y, scale, grad_x = ctx.saved_tensors

        def mean_product(a: Tensor, b: Tensor) -> Tensor:
            return (a * b).mean(ctx.over, keepdim=True)

        to_grad = _Gradient.apply(vector, x, y, scale, ctx.over)
        to_x = mean_product(vector, grad_x) * y + mean_product(grad, y) * to_grad + mean_product(vector, y) * grad_x
        return to_grad, -scale * to_x, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, over: list[int]
    ) -> tuple[Tensor, int]:
        moved = [
            (tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor).movedim(dim or 0, 1)
            for tensor, dim in zip((grad, x, y, scale), in_dims[:4], strict=True)
        ]
        return _Gradient.apply(*moved, _beside_tasks(over)), 1


def _beside_tasks(over: list[int]) -> list[int]:
    """The dimensions that ``over`` names, when the task axis stands at 1."""
    return [dim + (dim > 0) for dim in over]
