"""The kernel that multiplies matrices against PyTorch's product, and that it serves where it is faster alone."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_meta.mapping import matrix_product, missing_compiler
from lightning_meta.mapping.inductor import fuse

pytestmark = [
    pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler()),
    pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the processor has no AVX-512"),
]
OURS = torch.ops.lightning_meta.product.default
# A lane less and more than registers, panels and blocks have; rows that are copied; more of B than stays in the cache.
SHAPES = [(1, 1, 1), (5, 7, 3), (11, 15, 16), (12, 16, 17), (13, 17, 31), (25, 9, 32), (24, 33, 33), (64, 980, 9)]
SHAPES += [(100, 40, 65), (97, 2100, 64), (3, 1, 100)]


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the processor: on Intel's, PyTorch's own product is as fast."""
    monkeypatch.setattr(matrix_product, "_faster", lambda compiled: True)
    matrix_product.kernel.cache_clear()
    yield
    matrix_product.kernel.cache_clear()


def laid_out(rows: int, columns: int, layout: str) -> Tensor:
    """Random values whose rows are contiguous, whose columns are, or neither."""
    if layout == "rows":
        return torch.randn(rows, columns)
    return torch.randn(columns, rows).t() if layout == "columns" else torch.randn(2 * rows, 3 * columns)[::2, ::3]


def check(rows: int, inner: int, columns: int, left: str, right: str) -> None:
    """Compare with the product in float64, within its bound (Higham, "Accuracy and Stability", 2002, section 3.5)."""
    torch.manual_seed(0)
    a, b = laid_out(rows, inner, left), laid_out(inner, columns, right)
    bound = inner * torch.finfo(torch.float32).eps * (a.double().abs() @ b.double().abs())
    found = matrix_product.multiply(a, b, out=torch.full((rows, columns), torch.nan))
    assert ((found - a.double() @ b.double()).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_product_in_float64(shape: tuple[int, int, int]) -> None:
    for left, right in product(("rows", "columns", "neither"), repeat=2):
        check(*shape, left, right)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_it(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns where there are many, rows otherwise."""
    monkeypatch.setattr(matrix_product, "_SHARED", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for shape in ((13, 2100, 64), (25, 9, 32), (3, 40, 100)):
        check(*shape, "rows", "columns")


def test_nothing_is_written_beside_the_result() -> None:
    a, b = torch.randn(13, 20), torch.randn(17, 20).t()
    memory = torch.full((15, 17), 7.0)
    matrix_product.multiply(a, b, out=memory[1:14])
    torch.testing.assert_close(memory[1:14], a @ b)
    assert (memory[[0, 14]] == 7).all()


def test_values_that_are_not_finite_stay_in_their_rows() -> None:
    """Lanes beyond the last column and rows of a last block hold no values of their own."""
    a, b = torch.randn(13, 33), torch.randn(33, 35)
    a[12, 3], b[5, 34] = torch.nan, torch.inf
    found = torch.ops.lightning_meta.product(a, b)
    assert torch.equal(found.isfinite(), (a @ b).isfinite())


@pytest.mark.parametrize(
    ("rows", "kind", "taken"), [(245, torch.float32, True), (2, torch.float32, False), (245, torch.float64, False)]
)
def test_it_is_given_all_but_the_smallest_products_of_float32(rows: int, kind: torch.dtype, taken: bool) -> None:
    x, y = torch.randn(rows, 57, dtype=kind), torch.randn(64, 57, dtype=kind).t()
    graph = make_fx(torch.mm)(x, y)
    matrix_product.use_kernel(graph)
    assert (OURS in {node.target for node in graph.graph.nodes}) is taken
    torch.testing.assert_close(graph(x, y), x @ y)


def test_inductor_calls_it_and_gets_what_the_graph_gives() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 57), torch.randn(64, 57)

    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        first = (x + 1) @ y.t()
        return [first.relu(), first.t() @ x]

    expected = function(x, y)
    graph = make_fx(function)(x, y)
    with torch.no_grad():
        found = fuse(graph, [x, y])(x, y)
    assert [node.target for node in graph.graph.nodes].count(OURS) == 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", ["AVX-512", "gain"])
def test_pytorchs_product_stays_where_it_is_as_fast(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "gain":
        monkeypatch.setattr(matrix_product, "_faster", lambda compiled: False)
    else:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    x, y = torch.randn(245, 57), torch.randn(57, 64)
    graph = make_fx(torch.mm)(x, y)
    matrix_product.use_kernel(graph)
    assert OURS not in {node.target for node in graph.graph.nodes}
