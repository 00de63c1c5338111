"""Products of float32 matrices by a kernel of our own, for processors whose AVX-512 PyTorch's products leave unused.

PyTorch multiplies matrices on a CPU by MKL, which uses AVX-512 on Intel's processors alone. Its call of oneDNN, which
uses it on others, takes eleven microseconds, as long as a small product. What ``matrix_product.cpp`` holds is compiled
for this processor by Inductor, when the first graph is fused that multiplies matrices, and called by fused kernels.
"""

import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.library import Library

aten = torch.ops.aten
_WORTH = 10_000  # multiplications of a product, from where the kernel gains more than its call costs
_SHARED = 2**20  # multiplications that are worth sharing among threads
_GAIN = 0.9  # of the time of PyTorch's own product, at most
_TYPICAL = 245, 576, 64  # the second layer of a Conv4 on five pictures

_library = Library("lightning_meta", "DEF")
_library.define("product(Tensor a, Tensor b) -> Tensor")


@torch.library.impl(_library, "product", "CPU")
def _product(a: Tensor, b: Tensor) -> Tensor:
    return multiply(a, b, out=_product_shape(a, b))


@torch.library.impl(_library, "product", "Meta")
def _product_shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def multiply(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """The product of two matrices, of whatever strides, in a third with contiguous rows."""
    (rows, inner), columns, compiled = a.shape, b.shape[1], kernel()
    assert compiled is not None
    if 1 not in b.stride():  # it copies columns, which have to be contiguous if rows are not
        b = b.contiguous()
    threads = torch.get_num_threads() if rows * inner * columns >= _SHARED else 1
    compiled(a, b, out, rows, inner, columns, *a.stride(), *b.stride(), threads)
    return out


@cache
def kernel() -> Callable[..., None] | None:
    """What multiplies matrices, once compiled; None where the processor has no AVX-512, or PyTorch's is as fast."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    source = Path(__file__).with_suffix(".cpp").read_text("utf-8")
    types = ["const float*", "const float*", "float*", *["int64_t"] * 8]
    compiled: Callable[..., None] = CppPythonBindingsCodeCache.load_pybinding(types, source)
    if not _faster(compiled):
        return None
    _register()
    return compiled


def _faster(compiled: Callable[..., None]) -> bool:
    """Whether it is, by medians of alternating calls."""
    rows, inner, columns = _TYPICAL
    a, b, out = torch.rand(rows, inner), torch.rand(columns, inner).t(), torch.empty(rows, columns)
    threads = torch.get_num_threads()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(9):
        for calls, product in zip(
            seconds,
            (
                lambda: compiled(a, b, out, rows, inner, columns, *a.stride(), *b.stride(), threads),
                lambda: torch.mm(a, b, out=out),
            ),
            strict=True,
        ):
            start = time.perf_counter()
            product()
            calls.append(time.perf_counter() - start)
    own, theirs = map(statistics.median, seconds)
    return own < _GAIN * theirs


@cache
def _register() -> None:
    """Have Inductor call it without PyTorch's dispatcher, into memory that Inductor plans."""
    from torch._inductor.kernel.mm_common import mm_args
    from torch._inductor.lowering import register_lowering
    from torch._inductor.select_algorithm import ExternKernelChoice

    choice = ExternKernelChoice(multiply, name="lightning_meta_product")

    @register_lowering(torch.ops.lightning_meta.product.default, type_promotion_kind=None)
    def _lower(a: Any, b: Any) -> Any:
        *_, layout, a, b = mm_args(a, b)
        return choice.bind((a, b), layout).output_node()


def use_kernel(graph: GraphModule) -> None:
    """Give the products of float32 matrices to the kernel, but for the smallest."""
    for node in graph.graph.nodes:
        if node.target is aten.mm.default:
            a, b = (operand.meta["val"] for operand in node.args)
            large = a.shape[0] * a.shape[1] * b.shape[1] >= _WORTH
            if a.dtype == torch.float32 and a.device.type == "cpu" and large and kernel():
                node.target = torch.ops.lightning_meta.product.default
    graph.recompile()
