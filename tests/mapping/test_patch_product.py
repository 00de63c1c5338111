"""Products with patches that are never written to memory, against the patches and PyTorch's product in float64."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from lightning_meta.mapping import matrix_product, missing_compiler
from lightning_meta.mapping.inductor import fuse
from lightning_meta.mapping.matrix_product import ours, use_kernels
from lightning_meta.mapping.patches import IMAGES, PATCHES, Window, expand, images_of, patches_of
from lightning_meta.mapping.products import ConvolutionsAsProducts

compiled = pytest.mark.skipif(
    bool(missing_compiler()) or torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason=missing_compiler() or "the processor has no AVX-512",
)
KERNELS = [ours.patches_product.default, ours.product_patches.default, ours.product_images.default]

# (images, height, width, channels), filters, window: Conv-4's layers; windows that differ by axis; more channels or
# filters than a panel or a part of a sum; taps that see nothing, and pixels that no tap sees.
CASES: list[tuple[tuple[int, int, int, int], int, Window]] = [
    ((5, 14, 14, 64), 64, Window((3, 3), (2, 2), (1, 1), (1, 1))),
    ((5, 7, 7, 64), 64, Window((3, 3), (2, 2), (1, 1), (1, 1))),
    ((1, 4, 4, 64), 3, Window((3, 3), (2, 2), (1, 1), (1, 1))),
    ((2, 9, 11, 32), 5, Window((3, 2), (1, 2), (2, 1), (0, 2))),
    ((3, 8, 8, 16), 70, Window((1, 3), (1, 1), (1, 2), (0, 1))),
    ((2, 7, 9, 80), 300, Window((2, 2), (3, 2), (1, 1), (0, 0))),
    ((2, 3, 2, 16), 8, Window((2, 3), (3, 3), (1, 1), (3, 3))),
    ((1, 1, 1, 208), 17, Window((5, 5), (1, 1), (1, 1), (2, 2))),
]
CASE = pytest.mark.parametrize(("shape", "filters", "window"), CASES, ids=str)


def within_bound(found: Tensor, a: Tensor, b: Tensor, of: Callable[[Tensor], Tensor] = lambda x: x) -> None:
    """Compare with the product in float64 (Higham, "Accuracy and Stability", 2002, section 3.5)."""
    a, b = a.double(), b.double()
    bound = 2 * a.shape[1] * torch.finfo(torch.float32).eps * of(a.abs() @ b.abs()) + 1e-30
    assert ((found - of(a @ b)).abs() <= bound).all()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@compiled
@CASE
@pytest.mark.usefixtures("threads")
def test_equals_the_product_of_written_patches(shape: tuple[int, ...], filters: int, window: Window) -> None:
    torch.manual_seed(0)
    numbers, images = window.numbers, torch.randn(shape)
    patches = patches_of(images, numbers)
    rows, taps = patches.shape
    for weights in (torch.randn(filters, taps).t(), torch.randn(taps, filters), torch.randn(2 * taps, 3)[::2, 1:]):
        within_bound(ours.patches_product(images, weights, numbers), patches, weights)
    for grad in (torch.randn(rows, filters).t(), torch.randn(filters, rows), torch.randn(2, 2 * rows)[:, ::2]):
        within_bound(ours.product_patches(grad, images, numbers), grad, patches)
    grad, back = torch.randn(rows, filters), torch.randn(filters, taps)
    for a, b in ((grad, back), (torch.randn(filters, rows).t(), torch.randn(taps, filters).t())):
        found = ours.product_images(a, b, numbers, [*shape])
        within_bound(found, a, b, lambda product: images_of(product, [*shape], numbers))


@CASE
def test_images_are_the_transpose_of_patches(shape: tuple[int, ...], filters: int, window: Window) -> None:
    torch.manual_seed(0)
    images = torch.randn(shape, dtype=torch.float64)
    patches = patches_of(images, window.numbers)
    other = torch.randn_like(patches)
    torch.testing.assert_close((patches * other).sum(), (images * images_of(other, [*shape], window.numbers)).sum())


@compiled
def test_values_that_are_not_finite_stay_where_they_are_seen() -> None:
    """Beside an image are zeros that are multiplied with no pixel, and lanes beyond the last filter hold nothing."""
    torch.manual_seed(0)
    window = Window((3, 3), (2, 2), (1, 1), (1, 1)).numbers
    images, weights = torch.randn(2, 7, 7, 16), torch.randn(9 * 16, 5)
    images[1, 6, 6, 3] = torch.nan
    finite = ours.patches_product(images, weights, window).isfinite().all(1).view(2, 4, 4)
    assert torch.equal((~finite).nonzero(), torch.tensor([[1, 3, 3]]))
    grad = torch.randn(32, 5)
    grad[5, 2] = torch.inf
    finite = ours.product_images(grad, weights.t(), window, [2, 7, 7, 16]).isfinite().all(3)
    assert torch.equal((~finite).nonzero(), torch.tensor([[0, y, x] for y in (1, 2, 3) for x in (1, 2, 3)]))


@compiled
def test_nothing_is_written_beside_the_result() -> None:
    torch.manual_seed(0)
    window, shape = Window((3, 3), (2, 2), (1, 1), (1, 1)).numbers, (2, 7, 7, 16)
    images, weights, grad = torch.randn(shape), torch.randn(144, 5), torch.randn(32, 5)
    for name, a, b, size in (
        ("patches_product", images, weights, (32, 5)),
        ("product_patches", grad.t(), images, (5, 144)),
        ("product_images", grad, weights.t(), shape),
    ):
        memory = torch.full((size[0] + 2, *size[1:]), 7.0)
        matrix_product.multiply(a, b, *window, out=memory[1:-1], name=name)
        assert (memory[[0, -1]] == 7).all()
        assert (memory[1:-1] != 7).all()


def second_order(x: Tensor, first: Tensor, second: Tensor) -> list[Tensor]:
    """What a learner differentiates: the gradient at weights after a step, through the step."""

    def loss(weights: tuple[Tensor, Tensor]) -> Tensor:
        hidden = functional.conv2d(x, weights[0], stride=2, padding=1).tanh()
        return functional.conv2d(hidden, weights[1], stride=2, padding=1).tanh().square().sum()

    def outer(weights: tuple[Tensor, Tensor]) -> Tensor:
        steps = torch.func.grad(loss)(weights)
        return loss((weights[0] - 0.01 * steps[0], weights[1] - 0.01 * steps[1]))

    return [*torch.func.grad(outer)((first, second))]


def network(channels: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((4, channels, 9, 9), (32, channels, 3, 3), (16, 32, 3, 3))
    x, first, second = (torch.randn(shape, dtype=dtype) / shape[1] for shape in shapes)
    return tuple(t.to(memory_format=torch.channels_last) for t in (x, first, second))  # type: ignore[return-value]


def traced(tensors: tuple[Tensor, ...]) -> Any:
    with ConvolutionsAsProducts():
        graph = make_fx(second_order)(*tensors)
    graph.graph.eliminate_dead_code()
    return graph


def targets(graph: Any) -> list[Any]:
    return [node.target for node in graph.graph.nodes]


@compiled
def test_a_second_order_gradient_writes_no_patches() -> None:
    """Whatever PyTorch differentiates convolutions to: products with patches, and images of products."""
    tensors = network(16)
    graph = traced(tensors)
    assert PATCHES in targets(graph)
    assert IMAGES in targets(graph)
    use_kernels(graph)
    assert not {PATCHES, IMAGES, torch.ops.aten.mm.default} & {*targets(graph)}
    assert {*KERNELS} <= {*targets(graph)}
    exact = second_order(*(tensor.double() for tensor in tensors))
    torch.testing.assert_close(graph(*tensors), [one.float() for one in exact], rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(("channels", "dtype"), [(3, torch.float32), (16, torch.float64)], ids=str)
def test_other_channels_and_types_have_their_patches_written(channels: int, dtype: torch.dtype) -> None:
    tensors = network(channels, dtype)
    graph = traced(tensors)
    use_kernels(graph)
    assert PATCHES in targets(graph)
    expand(graph)
    assert not {PATCHES, IMAGES} & {*targets(graph)}
    torch.testing.assert_close(graph(*tensors), second_order(*tensors), rtol=1e-4, atol=1e-5)


def images_in(function: Callable[..., Any], *tensors: Tensor) -> list[str]:
    """The operations of a graph that are ours, or products, once the kernels are in it; its values stay the same."""
    graph = make_fx(function)(*(tensor.clone() for tensor in tensors))
    use_kernels(graph)
    torch.testing.assert_close(graph(*(tensor.clone() for tensor in tensors)), function(*tensors), rtol=1e-4, atol=1e-4)
    named = [str(target).split(".")[-2] for target in targets(graph) if not isinstance(target, str)]
    return [
        name for name in named if name in ("mm", "product", "images", "patches", "patches_product", "product_images")
    ]


SMALL = Window((3, 3), (1, 1), (1, 1), (0, 0)).numbers  # on (2, 6, 6, 16): 32 places, 144 taps


def to_images(product: Tensor) -> Tensor:
    return torch.ops.lightning_meta.images(product, [2, 6, 6, 16], SMALL)


def factors(*inner: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [matrix for size in inner for matrix in (torch.randn(32, size), torch.randn(size, 144))]


@compiled
def test_images_of_sums_are_sums_of_images_where_kernels_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    three = factors(8, 9, 10)

    def of_three(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
        return to_images(a @ b + c @ d + e @ f)

    assert images_in(of_three, *three) == ["product_images"] * 3
    assert images_in(lambda a, b, c, d: to_images(a @ b + c @ d), *factors(8, 2)) == ["product", "mm", "images"]
    assert images_in(lambda a, b, c, d: to_images(a @ b + c[:1] @ d), *factors(8, 99))[-1] == "images"
    monkeypatch.setattr(matrix_product, "kernels", lambda: None)
    assert images_in(of_three, *three) == ["mm"] * 3 + ["images"]


@compiled
def test_a_product_that_is_also_read_otherwise_is_computed_once() -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        product = a @ b
        return to_images(product), product.sum()

    assert images_in(function, *factors(8)) == ["product", "images"]


@compiled
def test_what_is_changed_in_place_is_read_before() -> None:
    def function(images: Tensor, b: Tensor) -> Tensor:
        images = images + 1
        patches = torch.ops.lightning_meta.patches(images, SMALL)
        images.mul_(2)
        return patches @ b + images.sum()

    torch.manual_seed(0)
    assert images_in(function, torch.randn(2, 6, 6, 16), torch.randn(144, 9)) == ["patches", "product"]


@compiled
def test_tables_of_many_shapes_are_forgotten_and_made_again() -> None:
    torch.manual_seed(0)
    weights = torch.randn(144, 9)
    for count in [*range(1, 70), 1, 2]:
        images = torch.randn(count, 4, 4, 16)
        within_bound(ours.patches_product(images, weights, SMALL), patches_of(images, SMALL), weights)


@compiled
def test_shapes_that_do_not_fit_are_no_products() -> None:
    for a, b in ((torch.randn(4, 9), torch.randn(5, 7)), (torch.randn(2, 6, 6, 16), torch.randn(16, 7))):
        with pytest.raises(AssertionError):
            matrix_product.multiply(a, b, *SMALL, out=torch.empty(4 if a.dim() == 2 else 32, 7))


@compiled
def test_a_product_of_a_mean_over_many_pixels_is_fused() -> None:
    torch.manual_seed(0)
    x, kernel, last = torch.randn(5, 16, 9, 9), torch.randn(64, 16, 3, 3) / 12, torch.randn(40, 64)

    def pooled(x: Tensor, kernel: Tensor, last: Tensor) -> list[Tensor]:
        pixels = functional.conv2d(x, kernel, padding=1).relu().mean((2, 3))
        return [pixels @ last.t(), pixels.mean(1)]

    with ConvolutionsAsProducts():
        graph = make_fx(pooled)(x, kernel, last)
    torch.testing.assert_close(
        fuse(graph, [x, kernel, last])(x, kernel, last), pooled(x, kernel, last), rtol=1e-4, atol=1e-4
    )


CALLS = {
    "linux": r"^ *.*\(aoti_torch_cpu_lightning_meta_(?:patches_product|product_patches|product_images)\(",
    "another": r"extern_kernels\.lightning_meta_(?:patches_product|product_patches|product_images)\(",
}


@compiled
@pytest.mark.parametrize("platform", CALLS)
def test_inductor_calls_the_kernels_and_gets_what_the_graph_gives(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    tensors = network(16)
    graph = traced(tensors)
    use_kernels(graph)
    count = sum(target in KERNELS for target in targets(graph))
    expected = graph(*tensors)
    with torch.no_grad(), torch._inductor.config.patch(force_disable_caches=True):  # or there is no code to be seen
        found, (code,) = run_and_get_code(lambda: fuse(traced(tensors), [*tensors])(*tensors))
    assert len(re.findall(CALLS[platform], code, re.MULTILINE)) == count > 8
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
