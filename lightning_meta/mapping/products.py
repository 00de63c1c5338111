"""Convolution as one matrix product, the form that runs fastest once a compiler has fused what surrounds it.

Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006.
The patches of an image are laid out as rows, channels last, so that weights of shape (filters, patch) multiply them as
they lie. Laying out patches and adding them up again are linear, and each is the other's derivative; all else is
differentiated by PyTorch. Run operation by operation this is slower than `convolution`, since patches are copies.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from itertools import product
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class _Window(NamedTuple):
    """Where a kernel looks at an image: every field is (height, width)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    def outputs(self, image: torch.Size) -> Pair:
        """The size of the output for an image of shape (..., height, width)."""
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(image[-2:], *self, strict=True)
        )
        return height, width


class ConvolutionsAsProducts(TorchFunctionMode):
    """Within it, every two-dimensional convolution of every module that can be one product is the one of this file."""

    def __enter__(self) -> Self:
        self._token = _within.set(True)
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        _within.reset(self._token)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return (_convolution if becomes_product(func, *args, **kwargs) else func)(*args, **kwargs)


_within: ContextVar[bool] = ContextVar("within", default=False)


def becomes_product(func: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a call of PyTorch's is a convolution that is to be one product here.

    With groups, a padding by name or a single image it is not.
    """
    return func is functional.conv2d and _within.get() and _is_one_product(*args, **kwargs)


def _is_one_product(
    input: Tensor,  # noqa: A002  (the names are those of torch.nn.functional.conv2d)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> bool:
    return groups == 1 and not isinstance(padding, str) and input.dim() == 4


def _convolution(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.nn.functional.conv2d``."""
    window = _Window(_pair(weight.shape[2:]), _pair(stride), _pair(padding), _pair(dilation))
    patches = _Patches.apply(input, window)
    rows = patches @ weight.permute(0, 2, 3, 1).flatten(1).t()
    rows = rows if bias is None else rows + bias.to(rows.dtype)
    return rows.unflatten(0, (len(input), *window.outputs(input.shape))).permute(0, 3, 1, 2)


class _Patches(Function):
    """(images, channels, height, width) to (images * output height * output width, kernel * channels)."""

    @staticmethod
    def forward(x: Tensor, window: _Window) -> Tensor:
        (rows, columns), (down, right), (stride_down, stride_right) = window.padding, window.dilation, window.stride
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows))
        wide = padded.unfold(1, down * (window.kernel[0] - 1) + 1, stride_down)[..., ::down]
        wide = wide.unfold(2, right * (window.kernel[1] - 1) + 1, stride_right)[..., ::right]
        # From (images, height, width, channels, kernel height, kernel width).
        return wide.permute(0, 1, 2, 4, 5, 3).reshape(-1, window.kernel[0] * window.kernel[1] * x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, patches: Tensor) -> Any:
        return _Image.apply(patches, ctx.shape, ctx.window), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, window: _Window) -> tuple[Tensor, int]:
        patches = _Patches.apply(x.movedim(in_dims[0], 0).flatten(0, 1), window)
        return patches.unflatten(0, (info.batch_size, -1)), 0


class _Image(Function):
    """The transpose of `_Patches`: every pixel is the sum of its copies."""

    @staticmethod
    def forward(patches: Tensor, shape: torch.Size, window: _Window) -> Tensor:
        images, channels, height, width = shape
        taps = patches.view(images, *window.outputs(shape), *window.kernel, channels)
        down, right = window.stride
        # Pixels whose places agree modulo the stride have the same taps, so that shifted planes add up.
        planes = [_plane(taps, phase, shape, window) for phase in product(range(down), range(right))]
        apart = torch.stack(planes, 3).unflatten(3, window.stride)  # (images, height, width, down, right, channels)
        together = apart.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
        image = together.permute(0, 3, 1, 2)
        top, left = window.padding
        return image[:, :, top : top + height, left : left + width]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, _, ctx.window = inputs

    @staticmethod
    def backward(ctx: Any, image: Tensor) -> Any:
        return _Patches.apply(image, ctx.window), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, patches: Tensor, shape: torch.Size, window: _Window) -> tuple[Tensor, int]:
        many = torch.Size((info.batch_size * shape[0], *shape[1:]))
        image = _Image.apply(patches.movedim(in_dims[0], 0).flatten(0, 1), many, window)
        return image.unflatten(0, (info.batch_size, -1)), 0


def _plane(taps: Tensor, phase: Pair, shape: torch.Size, window: _Window) -> Tensor:
    """The padded pixels (row, column) that are ``phase`` modulo the stride, (images, height, width, channels)."""
    size = [-(-(n + 2 * p) // s) for n, p, s in zip(shape[-2:], window.padding, window.stride, strict=True)]
    plane = taps.new_zeros(taps.shape[0], *size, taps.shape[-1])
    for tap in product(range(window.kernel[0]), range(window.kernel[1])):
        place = [step * dilation for step, dilation in zip(tap, window.dilation, strict=True)]
        if phase == tuple(n % s for n, s in zip(place, window.stride, strict=True)):
            shift = [n // s for n, s in zip(place, window.stride, strict=True)]
            margins = [
                side
                for before, whole, part in zip(reversed(shift), reversed(size), reversed(taps.shape[1:3]), strict=True)
                for side in (before, whole - before - part)
            ]
            plane = plane + functional.pad(taps[:, :, :, tap[0], tap[1]], [0, 0, *margins])
    return plane


def _pair(value: int | Sequence[int]) -> Pair:
    first, *rest = (value,) if isinstance(value, int) else value
    return first, rest[0] if rest else first
