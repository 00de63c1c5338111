"""Products of float32 matrices by a kernel of our own, for processors on which PyTorch's products do not use AVX-512.

PyTorch multiplies matrices on a CPU by MKL, which uses AVX-512 on Intel's processors alone. Its call of oneDNN, which
uses it on others, takes eleven microseconds, as long as a small product. ``matrix_product.cpp`` is compiled by Inductor
for this processor when the first graph with a large enough product is fused, and called by fused kernels.
"""

import ctypes
import platform
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.library import Library

aten = torch.ops.aten
_WORTH = 10_000  # multiplications of a product, from which on the kernel gains more than its call costs

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
    assert compiled is not None and a.dtype == b.dtype == out.dtype == torch.float32 and out.is_contiguous()
    if not (inner and out.numel()):
        return out.zero_()
    if 1 not in b.stride():  # the kernel needs contiguous rows or contiguous columns
        b = b.contiguous()
    torch.get_num_threads()  # tells OpenMP in this thread, too, what was set in another
    compiled(a, b, out, rows, inner, columns, *a.stride(), *b.stride())
    return out


@cache
def kernel() -> Callable[..., None] | None:
    """What multiplies matrices, once compiled; None where PyTorch's product is as fast, or it does not compile."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _is_from_intel():
        return None
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    types = ["const float*", "const float*", "float*", *["int64_t"] * 7]
    try:
        source = Path(__file__).with_suffix(".cpp").read_text("utf-8")
        compiled: Any = CppPythonBindingsCodeCache.load_pybinding(types, source)
        ctypes.CDLL(compiled.__self__.__file__, ctypes.RTLD_GLOBAL)  # by its name, for Inductor's C++ programs
        _register()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(f"model.compile: PyTorch multiplies matrices, since our kernel fails: {reason}", stacklevel=2)
        return None
    return cast(Callable[..., None], compiled)


def _is_from_intel() -> bool:
    """Whether Intel has made the processor: a fixed answer, so that a run that goes on adds up as it did before."""
    facts = Path("/proc/cpuinfo")
    return "GenuineIntel" in (facts.read_text("utf-8") if facts.exists() else platform.processor())


@cache
def _register() -> None:
    """Have Inductor call it without PyTorch's dispatcher, into memory that Inductor plans."""
    from torch._inductor.kernel.mm_common import mm_args
    from torch._inductor.lowering import register_lowering
    from torch._inductor.select_algorithm import ExternKernelChoice

    choice = ExternKernelChoice(multiply, "lightning_meta::lightning_meta_product", name="lightning_meta_product")

    @register_lowering(torch.ops.lightning_meta.product.default, type_promotion_kind=None)
    def _lower(a: Any, b: Any) -> Any:
        *_, layout, a, b = mm_args(a, b)
        return choice.bind((a, b), layout).output_node()


def c_shims() -> dict[str, list[str]]:
    """How Inductor's C++ programs call the kernel, for its setting ``aot_inductor.custom_ops_to_c_shims``."""
    text = Path(__file__).with_name("matrix_product_shim.h").read_text("utf-8")
    return {"lightning_meta::product": [text]}


def use_kernel(graph: GraphModule) -> None:
    """Give the products of float32 matrices to the kernel, except the smallest."""
    for node in graph.graph.nodes:
        if node.target is aten.mm.default:
            a, b = (operand.meta["val"] for operand in node.args)
            large = a.shape[0] * a.shape[1] * b.shape[1] >= _WORTH
            if a.dtype == torch.float32 and a.device.type == "cpu" and large and kernel():
                node.target = torch.ops.lightning_meta.product.default
    graph.recompile()
