"""Both convolutions against PyTorch's own: value, first and second derivatives, mapped and not."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from lightning_meta.mapping import RoutedConvolutions
from lightning_meta.mapping.convolution import convolution
from lightning_meta.mapping.products import ConvolutionsAsProducts

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.filterwarnings("ignore:Using padding='same'")]

GEOMETRIES: list[dict[str, Any]] = [
    {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for stride, padding, dilation, groups in itertools.product([1, 2], [0, (1, 2)], [1, 2], [1, 2])
]
GEOMETRIES += [{"padding": "same", "dilation": (2, 1)}, {"padding": "valid", "stride": (2, 1)}, {"stride": (3,)}]


def arguments(groups: int, *tasks: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(*tasks, 3, 4, 7, 8), torch.randn(*tasks, 6, 4 // groups, 3, 2), torch.randn(*tasks, 6)


def as_products(*tensors: Tensor, **options: Any) -> Tensor:
    with ConvolutionsAsProducts():
        return functional.conv2d(*tensors, **options)


BOTH = pytest.mark.parametrize("ours", [convolution, as_products])


def two_derivatives(function: Callable[..., Tensor], tensors: tuple[Tensor, ...], options: dict[str, Any]) -> list[Any]:
    """Value, gradient, and gradient of a function of the gradient."""

    def value(tensors: tuple[Tensor, ...]) -> Tensor:
        return function(*tensors, **options).sin().sum()

    def of_gradient(tensors: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([grad.cos().sum() for grad in torch.func.grad(value)(tensors)]).sum()

    return [function(*tensors, **options), torch.func.grad(value)(tensors), torch.func.grad(of_gradient)(tensors)]


@BOTH
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_two_derivatives_equal_pytorch(options: dict[str, Any], ours: Callable[..., Tensor]) -> None:
    tensors = arguments(options.get("groups", 1))
    found = two_derivatives(ours, tensors, options)
    torch.testing.assert_close(found, two_derivatives(functional.conv2d, tensors, options), rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("shared", ["nothing", "weight", "input"])
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_mapped_derivatives_equal_a_loop(options: dict[str, Any], shared: str, ours: Callable[..., Tensor]) -> None:
    x, weight, bias = arguments(options.get("groups", 1), 3)
    x, weight = x[0] if shared == "input" else x, weight[0] if shared == "weight" else weight
    dims = (None if shared == "input" else 0, None if shared == "weight" else 0, 0)

    def derivatives(*tensors: Tensor) -> list[Any]:
        return two_derivatives(ours, tensors, options)

    mapped = torch.func.vmap(derivatives, dims)(x, weight, bias)
    for task in range(3):
        tensors = tuple(t if dim is None else t[task] for t, dim in zip((x, weight, bias), dims, strict=True))
        expected = two_derivatives(functional.conv2d, tensors, options)
        found = torch.utils._pytree.tree_map(lambda leaf: leaf[task], mapped)  # noqa: B023
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def names(node: Any) -> set[str]:
    """What stands in the graph above a tensor."""
    return {type(node).__name__}.union(*(names(parent) for parent, _ in node.next_functions if parent is not None))


@pytest.mark.parametrize(
    ("layer", "size"),
    [(nn.Conv1d(2, 3, 3, 2), (8,)), (nn.Conv2d(2, 3, 3, padding="same"), (6, 6)), (nn.Conv3d(2, 3, 2), (4, 4, 4))],
)
def test_layers_are_routed_whatever_their_dimension(layer: nn.Module, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = layer.double()
    for shape in ((4, 2, *size), (2, *size)):  # with and without a batch
        x = torch.randn(shape)
        with RoutedConvolutions():
            ours = layer(x)
        assert "_ConvolutionBackward" in names(ours.grad_fn)
        torch.testing.assert_close(ours, layer(x), rtol=1e-12, atol=1e-12)


def operations(tasks: int, routed: bool) -> int:
    """Convolutions in the second-order gradient of two inner steps through two layers."""
    x = torch.randn(tasks, 2, 3, 6, 6)
    weights = {"a": torch.randn(3, 3, 3, 3), "b": torch.randn(4, 3, 3, 3)}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        hidden = functional.conv2d(x, weights["a"], padding=1).tanh()
        return functional.conv2d(hidden, weights["b"], stride=2).tanh().sum()

    def outer(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        for _ in range(2):
            grads = torch.func.grad(loss)(weights, x)
            weights = {name: weight - grads[name] for name, weight in weights.items()}
        return loss(weights, x)

    def total(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.vmap(outer, (None, 0))(weights, x).sum()

    with RoutedConvolutions() if routed else nullcontext():
        graph = make_fx(torch.func.grad(total))(weights, x)
    return sum("convolution" in str(node.target) for node in graph.graph.nodes)


def test_second_derivatives_do_not_loop_over_tasks() -> None:
    assert operations(3, routed=True) == operations(9, routed=True)
    assert operations(3, routed=False) < operations(9, routed=False)  # which is why this module exists


def test_what_can_be_one_product_is_not_routed() -> None:
    """As fused kernels of several tasks ask for it; the rest is routed, and never a loop over tasks."""

    def mapped(x: Tensor, weight: Tensor, grouped: Tensor) -> Tensor:
        def task(x: Tensor, weight: Tensor, grouped: Tensor) -> Tensor:
            return functional.conv2d(functional.conv2d(x, weight, padding=1), grouped, groups=2)

        return torch.func.vmap(task)(x, weight, grouped)

    tensors = torch.randn(3, 2, 4, 5, 5), torch.randn(3, 4, 4, 3, 3), torch.randn(3, 4, 2, 1, 1)
    with ConvolutionsAsProducts():
        graph = make_fx(lambda *tensors: with_routing(mapped, *tensors))(*tensors)
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(torch.ops.aten.convolution.default) == targets.count(torch.ops.aten.bmm.default) == 1
    torch.testing.assert_close(graph(*tensors), mapped(*tensors), rtol=1e-10, atol=1e-10)
    without = make_fx(lambda *tensors: with_routing(mapped, *tensors))(*tensors)
    assert [node.target for node in without.graph.nodes].count(torch.ops.aten.convolution.default) == 2


def with_routing(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    with RoutedConvolutions():
        return function(*tensors)
