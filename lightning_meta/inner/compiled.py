"""Compilation of a pure function: traced to one graph of tensor operations, then replayed."""

import warnings
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_Graph = Callable[..., list[Tensor]]


class Compiled(Generic[Arguments, Result]):
    """A pure function of pytrees of tensors, run as a graph that is traced once for each shape of its arguments.

    Tracing goes through ``vmap``, the inner gradients and the outer one, so that a graph holds their operations alone:
    nothing is recorded or dispatched again, and a value is freed after its last use. On a CPU the graph is replayed as
    it is, which measured faster than Inductor's code for it; on a GPU ``torch.compile`` makes CUDA graphs of it.

    What is no tensor is fixed when the graph is traced. A function that cannot be traced, since its course depends on
    values, runs as it is, after one warning.

    Args:
        function: the function; raises what it raises.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self._function = function
        self._graphs: dict[Any, tuple[_Graph, pytree.TreeSpec]] = {}
        self._traceable = True

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The result, as a constant."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        devices = {leaf.device.type for leaf in leaves}
        kinds = [(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]
        key = (*kinds, *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in sorted(devices)))
        with torch.no_grad():
            if key not in self._graphs and self._traceable:
                try:
                    self._graphs[key] = self._trace(leaves, spec)
                except Exception as error:
                    result = self._function(*args, **kwargs)  # raises what the function itself is to blame for
                    self._traceable = False
                    warnings.warn(
                        f"compile is true, but the meta-gradient cannot be traced, so it runs uncompiled: {error}. "
                        "Keep backbone and algorithm free of branches on values, or set model.compile to false",
                        stacklevel=2,
                    )
                    return result
            if not self._traceable:
                return self._function(*args, **kwargs)
            graph, result_spec = self._graphs[key]
            return pytree.tree_unflatten(graph(*leaves), result_spec)

    def _trace(self, leaves: list[Tensor], spec: pytree.TreeSpec) -> tuple[_Graph, pytree.TreeSpec]:
        result_specs = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            args, kwargs = pytree.tree_unflatten(leaves, spec)
            results, result_spec = pytree.tree_flatten(self._function(*args, **kwargs))
            result_specs.append(result_spec)
            return results

        graph = make_fx(flat)(*leaves)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return (_on_gpu(graph) if leaves[0].is_cuda else graph), result_specs[0]


def _on_gpu(graph: torch.fx.GraphModule) -> _Graph:
    """The graph as CUDA graphs, whose results the next run overwrites: hence the copies."""
    compiled = torch.compile(graph, mode="reduce-overhead")

    def run(*leaves: Tensor) -> list[Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return [result.clone() for result in compiled(*leaves)]

    return run
