"""The kernel that multiplies matrices against the product in float64, and that it serves only where it is faster."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_meta.mapping import matrix_product, missing_compiler
from lightning_meta.mapping.inductor import fuse

pytestmark = [
    pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler()),
    pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the processor has no AVX-512"),
]
OURS = torch.ops.lightning_meta.product.default
# One lane fewer and one more than registers, panels and blocks have; rows that are copied; sums in several parts.
SHAPES = [(1, 1, 1), (5, 7, 3), (11, 15, 16), (12, 16, 17), (13, 17, 31), (25, 9, 32), (24, 33, 33), (64, 980, 9)]
SHAPES += [(100, 40, 65), (97, 2100, 64), (3, 1, 100), (50, 30, 48), (980, 9, 64)]


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever has made the processor."""
    monkeypatch.setattr(matrix_product, "_is_from_intel", lambda: False)
    matrix_product.kernels.cache_clear()
    yield
    matrix_product.kernels.cache_clear()


LAYOUTS = {
    "rows": lambda rows, columns: torch.randn(rows, columns),
    "columns": lambda rows, columns: torch.randn(columns, rows).t(),
    "neither": lambda rows, columns: torch.randn(2 * rows, 3 * columns)[::2, ::3],
    "offset": lambda rows, columns: torch.randn(rows + 1, columns + 3)[1:, 3:],
    "one row": lambda rows, columns: torch.randn(1, columns).expand(rows, columns),
    "one column": lambda rows, columns: torch.randn(rows, 1).expand(rows, columns),
}


def check(rows: int, inner: int, columns: int, left: str, right: str) -> None:
    """Compare with the product in float64, within its bound (Higham, "Accuracy and Stability", 2002, section 3.5)."""
    torch.manual_seed(0)
    a, b = LAYOUTS[left](rows, inner), LAYOUTS[right](inner, columns)
    bound = inner * torch.finfo(torch.float32).eps * (a.double().abs() @ b.double().abs())
    found = matrix_product.multiply(a, b, out=torch.full((rows, columns), torch.nan))
    assert ((found - a.double() @ b.double()).abs() <= bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_product_in_float64(shape: tuple[int, int, int]) -> None:
    for left, right in product(LAYOUTS, repeat=2):
        check(*shape, left, right)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_it(threads: int) -> None:
    """Groups of columns where B exceeds the cache, rows otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ((13, 2100, 64), (129, 90, 100), (3, 40, 9000)):
            check(*shape, "rows", "columns")
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux lists them")
@pytest.mark.parametrize("how", ["alone", "fused"])
def test_a_thread_keeps_to_the_number_that_another_has_set(how: str) -> None:
    x, y, before = torch.randn(129, 90), torch.randn(90, 100), torch.get_num_threads()
    torch.set_num_threads(5)
    multiply = OURS if how == "alone" else fuse(make_fx(lambda x, y: [x @ y])(x, y), [x, y])
    added: list[int] = []

    def work() -> None:
        count = len(os.listdir("/proc/self/task"))
        multiply(x, y)
        added.append(len(os.listdir("/proc/self/task")) - count)

    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert added == [4]


def test_long_sums_are_as_exact_as_pytorchs() -> None:
    """In one part each, their error would be ten times as large."""
    torch.manual_seed(0)
    a, b = torch.rand(16, 100_000), torch.rand(100_000, 16)
    exact = a.double() @ b.double()
    ours, theirs = ((found - exact).norm() for found in (torch.ops.lightning_meta.product(a, b), a @ b))
    assert ours < 2 * theirs


@pytest.mark.parametrize("strides", [((7, 5), (7, 5)), ((1, 5), (5, 1)), ((7, 1), (1, 7))], ids=str)
def test_strides_of_single_rows_and_columns_do_not_matter(strides: tuple[tuple[int, int], tuple[int, int]]) -> None:
    memory = torch.randn(200)
    for a, b in (((3, 20), (20, 1)), ((3, 1), (1, 20)), ((1, 20), (20, 3))):
        left, right = (torch.as_strided(memory, *one) for one in zip((a, b), strides, strict=True))
        torch.testing.assert_close(torch.ops.lightning_meta.product(left, right), left @ right)


def test_sums_of_nothing_are_zero() -> None:
    assert torch.equal(torch.ops.lightning_meta.product(torch.empty(3, 0), torch.empty(0, 2)), torch.zeros(3, 2))
    assert torch.ops.lightning_meta.product(torch.empty(0, 4), torch.empty(4, 2)).shape == (0, 2)


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
    torch.manual_seed(0)
    x, y = torch.randn(rows, 57, dtype=kind), torch.randn(64, 57, dtype=kind).t()
    graph = make_fx(torch.mm)(x, y)
    matrix_product.use_kernels(graph)
    assert (OURS in {node.target for node in graph.graph.nodes}) is taken
    torch.testing.assert_close(graph(x, y), x @ y)


CALLS = {
    "linux": r"^ *.*\(aoti_torch_cpu_lightning_meta_product\(",  # from C++, and not where it is declared
    "another": r"extern_kernels\.lightning_meta_product\(",  # from Python
}


@pytest.mark.parametrize("platform", CALLS)
def test_inductor_calls_it_and_gets_what_the_graph_gives(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", platform)
    torch.manual_seed(0)
    x, y, wide = torch.randn(50, 57), torch.randn(64, 57), torch.randn(114, 90)

    def function(x: Tensor, y: Tensor, wide: Tensor) -> list[Tensor]:
        first = (x + 1) @ y.t()
        return [first.relu(), first.t() @ x, x @ wide[::2, ::3]]  # the last has neither rows nor columns contiguous

    expected = function(x, y, wide)
    graph = make_fx(function)(x, y, wide)
    with torch.no_grad(), torch._inductor.config.patch(force_disable_caches=True):  # or there is no code to be seen
        found, (code,) = run_and_get_code(lambda: fuse(graph, [x, y, wide])(x, y, wide))
    assert len(re.findall(CALLS[platform], code, re.MULTILINE)) == 3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reason", ["AVX-512", "Intel", "compiler"])
def test_pytorchs_product_stays_where_it_is_as_fast_or_alone(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "Intel":
        monkeypatch.setattr(matrix_product, "_is_from_intel", lambda: True)
    elif reason == "AVX-512":
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    else:

        def failing(*_: Any) -> None:
            raise RuntimeError("no such option")

        monkeypatch.setattr("torch._inductor.codecache.CppCodeCache.load", failing)
    fails = (
        pytest.warns(UserWarning, match="our kernels fail: no such option") if reason == "compiler" else nullcontext()
    )
    with fails:
        for rows, taken in ((245, reason == "Intel"), (2450, False)):
            graph = make_fx(torch.mm)(torch.randn(rows, 57), torch.randn(57, 64))
            matrix_product.use_kernels(graph)
            assert (OURS in {node.target for node in graph.graph.nodes}) is taken
