"""Fused kernels for a traced graph: what PyTorch's Inductor needs to be as exact as the graph itself, and as fast.

Inductor adds up the rows of a sum one after another, so that the error of a mean over a thousand of them is that of a
thousand additions, ten times what PyTorch's own sums have; behind a norm it moves whole backgrounds across the ReLU.
`add_in_stages` rewrites such sums (Higham, "The Accuracy of Floating Point Summation", 1993). It would also store some
images channels first, from which `lay_out_images` keeps it.
"""

import math
import operator
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from lightning_meta.mapping.matrix_product import c_shims, use_kernels
from lightning_meta.mapping.patches import expand

aten = torch.ops.aten
_ARITHMETIC = (aten.add, aten.sub, aten.mul, aten.div, aten.neg, aten.pow, aten.addcmul)
_STAGED = 64  # terms of a sum, from where its error shows


def missing_compiler() -> str:
    """What keeps Inductor from working here, for the message that says it; nothing where it works."""
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    return "" if any(map(shutil.which, compilers)) else "there is no C++ compiler (g++ or clang++)"


def channels_last(tree: Any) -> Any:
    """The same tensors, those of four dimensions with the second one innermost in memory, as `fuse` wants it."""
    return pytree.tree_map(lambda leaf: leaf.to(memory_format=torch.channels_last) if leaf.dim() == 4 else leaf, tree)


def fuse(graph: GraphModule, leaves: list[Tensor]) -> Callable[..., list[Tensor]]:
    """Compile a graph of tensor operations to fused kernels, for inputs of these shapes and memory layouts alone.

    Takes seconds for some hundred operations, and less where Inductor's cache on disk has them.

    Args:
        graph: a graph of ATen operations, which is changed in place.
        leaves: its inputs.
    """
    constants = _as_inputs(graph)
    if leaves[0].device.type == "cpu":  # a GPU adds up by threads that are many, and has all tasks in five dimensions
        add_in_stages(graph)
        use_kernels(graph)
        lay_out_images(graph)
    expand(graph)
    inputs: list[Any] = [*leaves, *constants]
    # Whoever calls the kernels lays out their inputs, so that asserting every layout would cost time alone.
    # Triton would time several forms of every kernel, for seconds that no kernel of a small network gives back.
    settings: dict[str, Any] = {"size_asserts": False, "alignment_asserts": False, "triton.autotune_pointwise": False}
    # Python between the kernels of one task, of which there are a hundred, would cost a tenth of their time.
    if leaves[0].device.type == "cpu" and sys.platform == "linux":
        settings |= {"cpp_wrapper": True, "aot_inductor.custom_ops_to_c_shims": c_shims()}
    with torch._inductor.config.patch(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused = torch._inductor.standalone_compile(graph, inputs, dynamic_shapes="from_example_inputs")

    def run(*leaves: Tensor) -> list[Tensor]:
        torch.get_num_threads()  # tells OpenMP in this thread, too, what was set in another
        return list(fused(*leaves, *constants))

    return run


def _as_inputs(graph: GraphModule) -> list[Tensor]:
    """Make inputs of the tensors that the graph uses without being given them, of which Inductor would keep copies."""
    constants: list[Tensor] = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        constants.append(getattr(graph, node.target))
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"constant_{len(constants)}")
        last.meta = node.meta
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.recompile()
    return constants


def lay_out_images(graph: GraphModule) -> None:
    """Have Inductor store images channels last, as the graph does, and as Inductor does before its own convolutions.

    It goes by the operands, of which an adapted norm has more for each channel than for each pixel, and would write
    the outputs of some activations and pools channels first, where every kernel around reads channel by channel.
    """
    from torch._inductor.inductor_prims import force_stride_order

    for node in list(graph.graph.nodes):
        if _is_image(node) and _is_stored(node):
            with graph.graph.inserting_after(node):
                laid_out = graph.graph.call_function(force_stride_order, ())
            node.replace_all_uses_with(laid_out)
            laid_out.args, laid_out.meta = (node, _value(node).stride()), node.meta
    graph.recompile()


def _is_image(node: Node) -> bool:
    """Whether the node gives a channels-last tensor in new memory, since Inductor takes what is forced for new."""
    source: Any = node.args[0] if node.target is operator.getitem else node
    new = isinstance(source.target, OpOverload) and not any(one.alias_info for one in source.target._schema.returns)
    value = node.meta.get("val")
    return new and torch.is_tensor(value) and value.dim() == 4 and _is_channels_last(value)


def _is_channels_last(value: Tensor) -> bool:
    return not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)


def _is_stored(node: Node) -> bool:
    """Whether it is worth memory: patches read it again and again, or it costs more than arithmetic to repeat."""
    to_patches = any(user.target is aten.permute.default and user.args[1] == [0, 2, 3, 1] for user in node.users)
    arithmetic = getattr(node.target, "overloadpacket", None) in _ARITHMETIC
    return to_patches or (len(node.users) > 1 and not arithmetic)


def with_strides(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The same values, laid out in memory by these strides."""
    if tensor.stride() == stride:
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def add_in_stages(graph: GraphModule) -> None:
    """Rewrite long sums and means in float32: one dimension after another, and long ones in two stages."""
    for node in graph.graph.nodes:
        if node.target not in (aten.sum.dim_IntList, aten.mean.dim) or set(node.kwargs) - {"keepdim"}:
            continue
        terms, over, *rest = node.args
        value = _value(terms)
        dims = sorted({dim % value.dim() for dim in (over or range(value.dim()))}, reverse=True)
        count = math.prod(value.shape[dim] for dim in dims)
        if value.dtype != torch.float32 or count < _STAGED:
            continue
        with graph.graph.inserting_before(node):
            total = _staged_sum(graph, terms, list(value.shape), dims)
            if not (rest[0] if rest else node.kwargs.get("keepdim", False)):
                kept = [size for dim, size in enumerate(value.shape) if dim not in dims]
                total = graph.graph.call_function(aten.reshape.default, (total, kept))
            if node.target is aten.mean.dim:
                total = graph.graph.call_function(aten.div.Tensor, (total, count))
        total.meta = node.meta  # what comes after may look at its shape
        node.replace_all_uses_with(total)
        graph.graph.erase_node(node)
    graph.recompile()


def _staged_sum(graph: GraphModule, terms: Node, shape: list[int], dims: list[int]) -> Node:
    """The sum over ``dims``, which are in falling order and are kept with size 1."""
    for dim in dims:
        stage = _near_root(shape[dim])
        if stage > 1:
            split = [*shape[:dim], shape[dim] // stage, stage, *shape[dim + 1 :]]
            terms = graph.graph.call_function(aten.reshape.default, (terms, split))
            terms = graph.graph.call_function(aten.sum.dim_IntList, (terms, [dim + 1]))
        terms = graph.graph.call_function(aten.sum.dim_IntList, (terms, [dim], True))
        shape = [*shape[:dim], 1, *shape[dim + 1 :]]
    return terms


def _near_root(size: int) -> int:
    """The largest divisor up to the square root of a size that is worth two stages, and 1 otherwise."""
    divisors = (stage for stage in range(math.isqrt(size), 4, -1) if size % stage == 0)
    return next(divisors, 1)


def _value(node: Node) -> Tensor:
    """A tensor of the shape and type that the node gives."""
    value: Tensor = node.meta["val"]
    return value
