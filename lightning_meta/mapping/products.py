"""Convolution as one matrix product, the form that runs fastest once a compiler has fused what surrounds it.

Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006.
The patches of an image are laid out as rows, channels last, so that weights of shape (filters, patch) multiply them as
they lie. Laying out patches and adding them up again are linear, and each is the other's derivative; all else is
differentiated by PyTorch. Run operation by operation this is slower than `convolution`, since patches are copies; on a
CPU kernels of our own read images in their place (`matrix_product.py`).
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_meta.mapping.patches import Pair, Window, patches_of


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
    window = Window(_pair(weight.shape[2:]), _pair(stride), _pair(dilation), _pair(padding))
    rows = _Patches.apply(input, window) @ weight.permute(0, 2, 3, 1).flatten(1).t()
    rows = rows if bias is None else rows + bias.to(rows.dtype)
    return rows.unflatten(0, (len(input), *window.places(*input.shape[2:]))).permute(0, 3, 1, 2)


class _Patches(Function):
    """(images, channels, height, width) to (images * output height * output width, kernel * channels)."""

    @staticmethod
    def forward(x: Tensor, window: Window) -> Tensor:
        images = x.permute(0, 2, 3, 1)
        if window.size == (1, 1):  # no more than the pixels, which a product can read as they are
            return patches_of(images, window.numbers)
        return torch.ops.lightning_meta.patches(images, window.numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, patches: Tensor) -> Any:
        return _Images.apply(patches, ctx.shape, ctx.window), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, window: Window) -> tuple[Tensor, int]:
        patches = _Patches.apply(x.movedim(in_dims[0], 0).flatten(0, 1), window)
        return patches.unflatten(0, (info.batch_size, -1)), 0


class _Images(Function):
    """The transpose of `_Patches`."""

    @staticmethod
    def forward(patches: Tensor, shape: torch.Size, window: Window) -> Tensor:
        count, channels, *extent = shape
        images = torch.ops.lightning_meta.images(patches, [count, *extent, channels], window.numbers)
        return images.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, _, ctx.window = inputs

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> Any:
        return _Patches.apply(images, ctx.window), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, patches: Tensor, shape: torch.Size, window: Window) -> tuple[Tensor, int]:
        many = torch.Size((info.batch_size * shape[0], *shape[1:]))
        images = _Images.apply(patches.movedim(in_dims[0], 0).flatten(0, 1), many, window)
        return images.unflatten(0, (info.batch_size, -1)), 0


def _pair(value: int | Sequence[int]) -> Pair:
    first, *rest = (value,) if isinstance(value, int) else value
    return first, rest[0] if rest else first
