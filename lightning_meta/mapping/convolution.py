"""Convolution for mapped tasks, whose derivatives of any order are convolutions again.

Tasks with weights of their own make one grouped convolution, with a group for each task. PyTorch differentiates that
twice by a loop over the groups. Here convolution, input gradient and weight gradient are three functions, linear in
each of two arguments, and each of the three is differentiated by the other two.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_meta.mapping.products import becomes_product

_ROUTED = (functional.conv1d, functional.conv2d, functional.conv3d)


class _Geometry(NamedTuple):
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def for_tasks(self, tasks: int) -> "_Geometry":
        """The same with a group for each task."""
        return self._replace(groups=self.groups * tasks)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients that ``mask`` asks for; of a tensor that they do not depend on, the shape is read alone."""
        outputs = [0] * len(self.stride)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False, outputs, self.groups, mask
        )


class RoutedConvolutions(TorchFunctionMode):
    """Within it, every convolution of every module is the one of this file, unless it is to become one product."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        routed = func in _ROUTED and not becomes_product(func, *args, **kwargs)
        return (convolution if routed else func)(*args, **kwargs)


def convolution(
    input: Tensor,  # noqa: A002  (the names are those of torch.nn.functional.conv2d)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``, with their arguments."""
    x, spatial = input, weight.dim() - 2
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if isinstance(padding, str) and (
        padding not in ("same", "valid") or (padding == "same" and set(_each(stride, spatial)) != {1})
    ):
        raise ValueError(f"padding is {padding!r}, expected 'valid', or 'same' with a stride of 1")
    if padding == "same":
        total = [d * (size - 1) for d, size in zip(_each(dilation, spatial), weight.shape[2:], strict=True)]
        x = functional.pad(x, [side for t in reversed(total) for side in (t // 2, t - t // 2)])
    sides = 0 if isinstance(padding, str) else padding
    geometry = _Geometry(_each(stride, spatial), _each(sides, spatial), _each(dilation, spatial), groups)
    alone = x.dim() == spatial + 1
    output = _Convolution.apply(x[None] if alone else x, weight, geometry)
    output = output if bias is None else output + bias.view(-1, *[1] * spatial)
    return output[0] if alone else output


class _Convolution(Function):
    """The output, from input and weight."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        stride, padding, dilation, groups = geometry
        outputs = [0] * len(stride)
        return torch.ops.aten.convolution(x, weight, None, stride, padding, dilation, False, outputs, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *tensors, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x, to_weight, _ = ctx.needs_input_grad
        return (
            _InputGradient.apply(grad, weight, x.shape, ctx.geometry) if to_x else None,
            _WeightGradient.apply(grad, x, weight.shape, ctx.geometry) if to_weight else None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, geometry: _Geometry) -> tuple[Tensor, int]:
        tasks = info.batch_size
        if in_dims[1] is None:  # one weight for all tasks: more rows
            rows = _Convolution.apply(_as_rows(x, in_dims[0]), weight, geometry)
            return rows.unflatten(0, (-1, tasks)), 1
        x, weight = _as_channels(x, in_dims[0], tasks), weight.movedim(in_dims[1], 0).flatten(0, 1)
        return _Convolution.apply(x, weight, geometry.for_tasks(tasks)).unflatten(1, (tasks, -1)), 1


class _InputGradient(Function):
    """The gradient of the input, from the output's and the weight."""

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, shape: torch.Size, geometry: _Geometry) -> Tensor:
        return geometry.backward(grad, grad.new_empty(shape), weight, [True, False, False])[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *tensors, _, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor) -> Any:
        grad, weight = ctx.saved_tensors
        to_grad, to_weight, *_ = ctx.needs_input_grad
        return (
            _Convolution.apply(grad_x, weight, ctx.geometry) if to_grad else None,
            _WeightGradient.apply(grad, grad_x, weight.shape, ctx.geometry) if to_weight else None,
            None,
            None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad: Tensor, weight: Tensor, shape: torch.Size, geometry: _Geometry
    ) -> tuple[Tensor, int]:
        tasks, (batch, channels, *size) = info.batch_size, shape
        if in_dims[1] is None:
            rows = _InputGradient.apply(_as_rows(grad, in_dims[0]), weight, (batch * tasks, channels, *size), geometry)
            return rows.unflatten(0, (-1, tasks)), 1
        grad, weight = _as_channels(grad, in_dims[0], tasks), weight.movedim(in_dims[1], 0).flatten(0, 1)
        x = _InputGradient.apply(grad, weight, (batch, tasks * channels, *size), geometry.for_tasks(tasks))
        return x.unflatten(1, (tasks, -1)), 1


class _WeightGradient(Function):
    """The gradient of the weight, from the output's and the input."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, shape: torch.Size, geometry: _Geometry) -> Tensor:
        return geometry.backward(grad, x, grad.new_empty(shape), [False, True, False])[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        *tensors, _, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor) -> Any:
        grad, x = ctx.saved_tensors
        to_grad, to_x, *_ = ctx.needs_input_grad
        return (
            _Convolution.apply(x, grad_weight, ctx.geometry) if to_grad else None,
            _InputGradient.apply(grad, grad_weight, x.shape, ctx.geometry) if to_x else None,
            None,
            None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, grad: Tensor, x: Tensor, shape: torch.Size, geometry: _Geometry
    ) -> tuple[Tensor, int]:
        tasks, (outputs, *rest) = info.batch_size, shape
        grad, x = _as_channels(grad, in_dims[0], tasks), _as_channels(x, in_dims[1], tasks)
        weight = _WeightGradient.apply(grad, x, (tasks * outputs, *rest), geometry.for_tasks(tasks))
        return weight.unflatten(0, (tasks, -1)), 0


def _each(value: int | Sequence[int], spatial: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * spatial
    return tuple(value) * (spatial if len(value) == 1 else 1)


# Activations keep the task axis behind the batch axis, where both foldings are views.


def _as_rows(x: Tensor, dim: int) -> Tensor:
    """(tasks * batch, channels, ...): for weights that all tasks share."""
    return x.movedim(dim, 1).flatten(0, 1)


def _as_channels(x: Tensor, dim: int | None, tasks: int) -> Tensor:
    """(batch, tasks * channels, ...): for a group of channels for each task."""
    x = x.unsqueeze(1).expand(-1, tasks, *x.shape[1:]) if dim is None else x.movedim(dim, 1)
    return x.flatten(1, 2)
