"""Products of float32 matrices, and of the patches of images, by kernels of our own for processors with AVX-512.

PyTorch multiplies matrices on a CPU by MKL, which uses AVX-512 on Intel's processors alone and is slow there where a
small matrix is transposed. Its call of oneDNN takes eleven microseconds, as long as a small product. Both need patches
in memory, nine times the image. ``matrix_product.cpp`` and ``patch_product.cpp`` are compiled by Inductor for this
processor when the first graph with a large enough product is fused, and called by fused kernels.
"""

import ctypes
import math
import platform
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.library import Library

from lightning_meta.mapping.patches import IMAGES, PATCHES, Window

aten, ours = torch.ops.aten, torch.ops.lightning_meta
_WORTH = 10_000  # multiplications of a product, from which on the kernel gains more than its call costs
_LARGE = 4_000_000  # multiplications, from which on MKL is as fast on Intel's processors
_LANES = 16  # of a register: patches of images whose channels are a multiple need not be written to memory

_SOURCES = ("matrix_product.cpp", "patch_product.cpp")
_NONE: list[int] = []
_NAMES = ("product", "patches_product", "product_patches", "product_images")

_library = Library("lightning_meta", "FRAGMENT")
_library.define("product(Tensor a, Tensor b) -> Tensor")
_library.define("patches_product(Tensor images, Tensor b, int[] window) -> Tensor")
_library.define("product_patches(Tensor a, Tensor images, int[] window) -> Tensor")
_library.define("product_images(Tensor a, Tensor b, int[] window, int[] shape) -> Tensor")


def _matrix(shape: list[int], window: list[int]) -> tuple[int, int]:
    """The rows and columns of a matrix, or of the patches of images."""
    if len(shape) == 2:
        return shape[0], shape[1]
    return shape[0] * math.prod(Window.of(window).places(*shape[1:3])), window[0] * window[1] * shape[3]


def _shape(a: list[int], b: list[int], window: list[int], shape: list[int]) -> list[int]:
    """The shape of what an operation gives for tensors of two shapes."""
    return shape or [_matrix(a, window)[0], _matrix(b, window)[1]]


class _Tensor(ctypes.Structure):
    """A tensor as the kernels take it."""

    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("sizes", "strides")))

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.data_ptr(), _integers(tensor.shape), _integers(tensor.stride()))


def _integers(numbers: Any) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def multiply(a: Tensor, b: Tensor, *window: int, out: Tensor, name: str = "product") -> Tensor:
    """Two matrices of whatever strides, or a matrix and channels-last images, by the kernel of that name."""
    library = kernels()
    assert library is not None and a.dtype == b.dtype == out.dtype == torch.float32 and out.is_contiguous()
    (rows, inner), (terms, columns) = (_matrix([*x.shape], [*window]) for x in (a, b))
    assert inner == terms and (rows, columns) == _matrix([*out.shape], [*window])
    if not (a.numel() and b.numel()):
        return out.zero_()
    a, b = (x.contiguous() if name == "product_images" or x.dim() == 4 else x for x in (a, b))
    if 1 not in b.stride():  # the kernel needs contiguous rows or contiguous columns
        b = b.contiguous()
    torch.get_num_threads()  # tells OpenMP in this thread, too, what was set in another
    given = [ctypes.byref(_Tensor(tensor)) for tensor in (a, b, out)]
    library[f"lightning_meta_{name}"](*given, _integers(window))
    return out


def _implement(name: str) -> None:
    def kernel(a: Tensor, b: Tensor, window: list[int] = _NONE, shape: list[int] = _NONE) -> Tensor:
        return multiply(a, b, *window, out=empty(a, b, window, shape), name=name)

    def empty(a: Tensor, b: Tensor, window: list[int] = _NONE, shape: list[int] = _NONE) -> Tensor:
        return a.new_empty(_shape([*a.shape], [*b.shape], window, shape))

    _library.impl(name, kernel, "CPU")
    _library.impl(name, empty, "Meta")


for _name in _NAMES:
    _implement(_name)


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled kernels; None without AVX-512, or where they do not compile."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    from torch._inductor.codecache import CppCodeCache

    try:
        sources = [Path(__file__).with_name(name).read_text("utf-8") for name in _SOURCES]
        path = CppCodeCache.load("\n".join(sources))._name
        library = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)  # by their names, for Inductor's C++ programs
        _register()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(f"model.compile: PyTorch multiplies matrices, since our kernels fail: {reason}", stacklevel=2)
        return None
    return library


def _is_from_intel() -> bool:
    """Whether Intel has made the processor: a fixed answer, so that a run that goes on adds up as it did before."""
    facts = Path("/proc/cpuinfo")
    return "GenuineIntel" in (facts.read_text("utf-8") if facts.exists() else platform.processor())


@cache
def _register() -> None:
    """Have Inductor call them without PyTorch's dispatcher, into memory that Inductor plans."""
    from torch._inductor import ir
    from torch._inductor.kernel.mm_common import realize_inputs
    from torch._inductor.lowering import register_lowering
    from torch._inductor.select_algorithm import extern_kernels

    def register(name: str) -> None:
        kernel = f"lightning_meta_{name}"
        setattr(extern_kernels, kernel, partial(multiply, name=name))

        @register_lowering(getattr(ours, name).default, type_promotion_kind=None)
        def _lower(a: Any, b: Any, window: list[int] = _NONE, shape: list[int] = _NONE) -> Any:
            whole = [name == "product_images" or len(x.get_size()) == 4 for x in (a, b)]
            operands = [
                ir.ExternKernel.require_contiguous(x) if contiguous else realize_inputs(x)
                for x, contiguous in zip((a, b), whole, strict=True)
            ]
            sizes = [[int(n) for n in x.get_size()] for x in operands]
            size = _shape(sizes[0], sizes[1], window, shape)
            return ir.TensorBox.create(
                ir.ExternKernelOut(
                    ir.FixedLayout(a.get_device(), a.get_dtype(), size),
                    operands,
                    window,
                    python_kernel_name=f"extern_kernels.{kernel}",
                    cpp_kernel_name=f"lightning_meta::{kernel}",
                )
            )

    for name in _NAMES:
        register(name)


def c_shims() -> dict[str, list[str]]:
    """How Inductor's C++ programs call the kernels, for its setting ``aot_inductor.custom_ops_to_c_shims``."""
    text = Path(__file__).with_name("matrix_product_shim.h").read_text("utf-8")
    return {"lightning_meta::product": [text]}


def use_kernels(graph: GraphModule) -> None:
    """Give products of float32 matrices to the kernels, and with them patches of images; dead code leaves the graph."""
    operations = [node.target for node in graph.graph.nodes if isinstance(node.target, OpOverload)]
    # After a change in place a kernel would read at a product what patches were not made of.
    lasting = not any(operation._schema.is_mutable for operation in operations)
    if lasting:
        _add_images(graph)
    for node in graph.graph.nodes:
        if node.target is aten.mm.default and _is_worth(node):
            a, b = node.args
            if lasting and _is_read_in_place(a, PATCHES):
                _replace(node, "patches_product", a.args[0], b, a.args[1])
            elif lasting and _is_read_in_place(b, PATCHES):
                _replace(node, "product_patches", a, *b.args)
            elif _multiplications(node) < _LARGE or not _is_from_intel():
                _replace(node, "product", a, b)
        elif lasting and _is_read_in_place(node, IMAGES) and _is_for_images(node.args[0]):
            (a, b), (shape, window) = node.args[0].args, node.args[1:]
            _replace(node, "product_images", a, b, window, shape)
            node.meta["val"] = node.meta["val"].new_empty(shape)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _add_images(graph: GraphModule) -> None:
    """Add up the images of several products, where a gradient adds up their patches, which are nine times as many."""
    for node in graph.graph.find_nodes(op="call_function", target=IMAGES):
        terms, value = _terms(node.args[0]), node.meta["val"]
        if len(terms) > 1 and _is_read_in_place(node, IMAGES) and all(map(_is_for_images, terms)):
            with graph.graph.inserting_before(node):
                total, *others = (graph.graph.call_function(IMAGES, (term, *node.args[1:])) for term in terms)
                total.meta["val"] = value
                for other in others:
                    other.meta["val"] = value
                    total = graph.graph.call_function(aten.add.Tensor, (total, other))
                    total.meta["val"] = value.new_empty(value.shape)
            node.replace_all_uses_with(total)
    graph.graph.eliminate_dead_code()


def _terms(node: Node) -> list[Node]:
    """What a node adds up that nothing else reads."""
    args: Any = node.args
    if node.target is not aten.add.Tensor or len(node.users) > 1 or node.kwargs or not isinstance(args[1], Node):
        return [node]
    if any(one.meta["val"].shape != node.meta["val"].shape for one in args):
        return [node]
    return _terms(args[0]) + _terms(args[1])


def _is_for_images(node: Node) -> bool:
    """Whether a node is a product of matrices in memory that only images are made of."""
    reads_patches = any(isinstance(one, Node) and one.target is PATCHES for one in node.args)
    return _is_worth(node) and len(node.users) == 1 and not reads_patches


def _is_worth(node: Node) -> bool:
    return _multiplications(node) >= _WORTH and kernels() is not None


def _replace(node: Node, name: str, *args: Any) -> None:
    node.target, node.args = getattr(ours, name).default, args


def _multiplications(node: Node) -> int:
    """Of a product of float32 matrices on a CPU; none of anything else."""
    if node.target not in (aten.mm.default, ours.product.default):
        return 0
    operands: Any = node.args
    left, right = (operand.meta["val"] for operand in operands)
    return left.numel() * right.shape[1] if left.dtype == torch.float32 and left.device.type == "cpu" else 0


def _is_read_in_place(node: Node, operation: OpOverload) -> bool:
    """Whether a node is this operation, between patches and images that lie as the kernels can read them."""
    if node.target is not operation:
        return False
    args: Any = node.args
    channels = args[0].meta["val"].shape[-1] if operation is PATCHES else args[1][-1]
    return bool(channels % _LANES == 0)
