"""Compilation of a pure function: traced to one graph of tensor operations, then replayed."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_meta.mapping.author_line import author_line
from lightning_meta.mapping.inductor import channels_last, fuse, with_strides
from lightning_meta.mapping.multi_tensor import copy_all
from lightning_meta.mapping.products import ConvolutionsAsProducts
from lightning_meta.mapping.randomness import kept_generators

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_Graph = Callable[..., list[Tensor]]
# A CPU traces about 1,000 operations in a second and gains that time back within some hundred calls of the graph.
MAX_OPERATIONS = 30_000
_KEPT = 2  # graphs of one kind: a run may change between two sets of weights, as a mean and its own
_PATIENCE = 3.0  # seconds before a person is told what is going on
_NUMBERS = ("__bool__", "__float__", "__int__", "__index__")
_READERS = {getattr(Tensor, name) for name in ("tolist", "item", "numpy", "__array__", *_NUMBERS)}


class _Place(NamedTuple):
    """Which tensor it is."""

    identity: int
    address: int
    shape: torch.Size
    dtype: torch.dtype


class _Traced(NamedTuple):
    """A graph, the structure of its results, and the tensors that it uses, by their number."""

    graph: _Graph
    spec: pytree.TreeSpec
    places: dict[int, _Place]


class Compiled(Generic[Arguments, Result]):
    """A pure function of pytrees of tensors, run as a graph that is traced once for each shape of its arguments.

    Tracing goes through ``vmap``, the inner gradients and the outer one, so that a graph holds their operations alone:
    nothing is recorded or dispatched again, and a value is freed after its last use. The graph is replayed as it is, or
    becomes fused kernels, which is faster and takes up to a minute; on a GPU either becomes one CUDA graph.

    A function that reads values of tensors, or makes tensors whose size depends on them, has no one graph: it runs as
    it is, after one warning; so does one of more than `MAX_OPERATIONS`, such as a recurrent network on long sequences,
    whose tracing would take minutes. Of what it uses without being given it, tensors are followed, and all else is
    fixed when the graph is traced.

    Args:
        function: the function; raises what it raises.
        used: gives the tensors that the function may use without being given them; a graph is traced again when one
            that it does use is another object than before, or lies elsewhere in memory.
        name: what the function computes, for the warning.
        fused: whether to make fused kernels of the graph; what Inductor raises is raised.
        kept: whether a result outlives the next call; on a GPU that takes a copy.
    """

    def __init__(
        self,
        function: Callable[Arguments, Result],
        used: Callable[[], Iterable[Tensor]] = tuple,
        name: str = "the meta-gradient",
        fused: bool = False,
        kept: bool = True,
    ) -> None:
        self._function = function
        self._used = used
        self._name = name
        self._fused, self._kept = fused, kept
        self._pool: Any = None  # of GPU memory that the graphs share, since no two run at once
        self._graphs: dict[Any, list[_Traced]] = {}
        self._traceable = True
        self.operations = 0  # in the last graph

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The result, as a constant."""
        return self._run(self._places(), *args, **kwargs)

    def for_now(self) -> Callable[Arguments, Result]:
        """The same function for many calls, between which no used tensor is exchanged for another."""
        return partial(self._run, self._places())

    def release(self) -> None:
        """Drop all graphs, and the memory that they hold on a GPU; they are traced again where they are needed."""
        self._graphs, self._pool = {}, None

    def _places(self) -> list["_Place"]:
        return [_Place(id(tensor), tensor.data_ptr(), tensor.shape, tensor.dtype) for tensor in self._used()]

    def _run(self, places: list["_Place"], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.is_anomaly_enabled():  # names the operations of a backward pass, which a graph no longer has
            with torch.no_grad():
                return self._function(*args, **kwargs)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        kinds = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        autocast = tuple(
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in sorted({leaf.device.type for leaf in leaves})
        )
        graphs = self._graphs.setdefault((spec, kinds, autocast, tuple(place[2:] for place in places)), [])
        traced = next((one for one in graphs if all(places[at] == place for at, place in one.places.items())), None)
        with torch.no_grad():
            if traced is None and self._traceable:
                try:
                    with kept_generators(leaves[0].device):  # tracing draws random numbers, which the run shall draw
                        traced = self._trace(leaves, spec)
                except Exception as error:
                    if out_of_memory(error) or self._fused:
                        raise
                    result = self._function(*args, **kwargs)  # raises what the function itself is to blame for
                    self._traceable = False
                    warnings.warn(f"compile is true, but {self._name} {_reason(error)}", stacklevel=2)
                    return result
                graphs[:] = [*graphs, traced][-_KEPT:]
            if traced is None:
                return self._function(*args, **kwargs)
            with torch.autocast(leaves[0].device.type, enabled=False):  # its casts are in the graph, and its exceptions
                return pytree.tree_unflatten(traced.graph(*leaves), traced.spec)

    def _trace(self, leaves: list[Tensor], spec: pytree.TreeSpec) -> "_Traced":
        result_specs = []
        # Rows that share memory, as after `expand` or `unfold`, could not take the values of rows that do not.
        leaves = [leaf if torch.ops.aten.is_non_overlapping_and_dense(leaf) else leaf.contiguous() for leaf in leaves]
        leaves = channels_last(leaves) if self._fused else leaves

        def flat(*leaves: Tensor) -> list[Tensor]:
            args, kwargs = pytree.tree_unflatten(leaves, spec)
            with _NoReading(), _Counting(self._name):
                results, result_spec = pytree.tree_flatten(self._function(*args, **kwargs))
            result_specs.append(result_spec)
            return results

        with ConvolutionsAsProducts() if self._fused else nullcontext():
            graph = make_fx(flat)(*leaves)
        for node in graph.graph.nodes:
            if _size_depends_on_values(node):
                raise RuntimeError(f"the size of what {node.target} gives depends on values")
            if self._fused and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise RuntimeError(f"{node.target} draws random numbers, which kernels would draw otherwise")
        graph.graph.eliminate_dead_code()
        graph.recompile()
        self.operations = len(graph.graph.nodes)
        constants = {constant.untyped_storage().data_ptr() for constant in _constants(graph)}
        used = enumerate(zip(self._used(), self._places(), strict=True))
        places = {at: place for at, (tensor, place) in used if tensor.untyped_storage().data_ptr() in constants}
        run, strides = fuse(graph, leaves) if self._fused else graph, [leaf.stride() for leaf in leaves]
        if leaves[0].is_cuda:
            return _Traced(self._recorded(run, leaves), result_specs[0], places)
        # What is a view of one layout in memory has to be a copy in another.
        return _Traced(lambda *leaves: run(*map(with_strides, leaves, strides)), result_specs[0], places)

    def _recorded(self, graph: _Graph, leaves: list[Tensor]) -> _Graph:
        """The graph as one CUDA graph, with inputs and results of its own that each run overwrites."""
        inputs = [leaf.clone() for leaf in leaves]
        self._pool = torch.cuda.graph_pool_handle() if self._pool is None else self._pool
        recorded, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.autocast("cuda", enabled=False):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # libraries make their work space when first called, never in a recording
                graph(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(recorded, pool=self._pool):
                results = graph(*inputs)

        def run(*leaves: Tensor) -> list[Tensor]:
            copy_all(inputs, leaves)
            recorded.replay()
            if not self._kept:
                return results
            copies = [torch.empty_like(result) for result in results]
            copy_all(copies, results)
            return copies

        return run


def _constants(graph: torch.fx.GraphModule) -> Iterator[Tensor]:
    """Tensors that a graph, or one within it, uses without being given them."""
    for part in graph.modules():
        if isinstance(part, torch.fx.GraphModule):
            values = (getattr(part, node.target) for node in part.graph.find_nodes(op="get_attr"))
            yield from filter(torch.is_tensor, values)


def _size_depends_on_values(node: torch.fx.Node) -> bool:
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return False
    if node.target is not torch.ops.aten.index.Tensor:
        return True
    indices = [index for index in cast(list[Any], node.args[1]) if index is not None]
    return any(index.meta["val"].dtype in (torch.bool, torch.uint8) for index in indices)


class _TooLongError(Exception):
    """More operations than are traced."""


def _reason(error: Exception) -> str:
    """Why a function runs uncompiled, and what to do."""
    if isinstance(error, _TooLongError):
        return (
            f"has more than {MAX_OPERATIONS:,} operations, whose tracing would take minutes, so it runs uncompiled: "
            "shorten sequences or inner loop, or set model.compile to false"
        )
    return (
        f"cannot be traced, so it runs uncompiled: {error}{author_line(error)}. Keep backbone and algorithm free of "
        "branches on values, or set model.compile to false"
    )


class _Counting(TorchDispatchMode):
    """Within it, tracing ends after `MAX_OPERATIONS` or at a number that depends on a tensor, and its time is told."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self._operations, self._told, self._start = name, 0, False, time.monotonic()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # out of Python's sight, as for a slope that is a tensor
            raise RuntimeError("a tensor is given where a number is expected, so that its value is read")
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise _TooLongError
        if not self._told and time.monotonic() - self._start > _PATIENCE:
            self._told = True
            logging.getLogger(__name__).warning(
                f"{self._name} is being traced to a graph, which is done once for each size of chunk and ends after "
                f"{MAX_OPERATIONS:,} operations (model.compile)"
            )
        return func(*args, **(kwargs or {}))


class _NoReading(TorchFunctionMode):
    """Within it, Python may not see the values of tensors, which a graph would keep for good."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READERS:
            raise RuntimeError(f"{func.__name__} reads the values of a tensor")
        return func(*args, **(kwargs or {}))


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or a CPU; Lightning's test is not known down here."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
