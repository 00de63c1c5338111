"""Whether a function of tasks becomes fused kernels: where they are faster, and the run long enough to gain by them."""

import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.timing import seconds_of
from lightning_meta.mapping import missing_compiler, out_of_memory

Result = TypeVar("Result")
Compile = bool | Literal["graph", "fused"]

_EACH = 0.03  # seconds that an operation takes to compile, about, unless Inductor's cache on disk has it
_GAIN = 0.3  # of the time by the graph, about; what it really is, is measured
_MARGIN = 2.0  # times the compilation is what a run has to gain


class Fusion:
    """Fused kernels, or the graph as it is: given, or chosen by `settle`.

    Args:
        setting: ``model.compile``.
        name: what is compiled, for messages.

    Attributes:
        chosen: whether kernels are taken; None before that is known.
        settled: whether nothing is left to be chosen or compiled.
    """

    def __init__(self, setting: Compile, name: str = "the meta-gradient") -> None:
        self._setting, self._name = setting, name
        self.reopen()

    def reopen(self) -> None:
        """Start again, for another run."""
        self.settled = self._setting in (False, "graph")
        self.chosen: bool | None = None if self._setting is True else self._setting == "fused"

    def restore(self, fused: bool | None) -> None:
        """Take over what a checkpoint holds, if anything, unless it was given."""
        if fused is not None and self._setting is True:
            self.chosen, self.settled = fused, not fused

    def settle(
        self,
        module: nn.Module,
        draws: bool | None,
        time_graph: Callable[[], float],
        fused: Callable[[], Any],
        operations: Callable[[], float],
        steps: float,
        agree: Callable[[bool], bool],
    ) -> None:
        """Compile, and time a real batch of tasks both ways, if the run is long enough for that; to be called once.

        Args:
            module: the learner.
            draws: whether its network draws random numbers; Inductor would draw others than the run shall.
            time_graph: gives the seconds that it takes by the graph.
            fused: the same by fused kernels, without side effects; the first call compiles.
            operations: how many the graph has, once it has run.
            steps: batches that are left.
            agree: whether all ranks say so, of which each gives its opinion.

        Raises:
            MetaLearningError: ``model.compile`` is ``fused``, which is not possible here.
        """
        self.settled = True
        hindrance = _hindrance(module, draws)
        if self._setting == "fused" and hindrance:
            raise MetaLearningError(f"model.compile is fused, but {hindrance}: set it to true, or to graph")
        known, self.chosen = self.chosen is not None, False
        if hindrance or not (known or (_single_precision(module) and not torch.are_deterministic_algorithms_enabled())):
            return
        if not known:
            by_graph = time_graph()
            gain = operations() > 0 and steps * by_graph * _GAIN > _MARGIN * _EACH * operations()
            if not agree(gain):
                return
        rank_zero_info(f"model.compile: {self._name} is compiled to fused kernels, which may take a minute")
        start = time.perf_counter()
        self.chosen = agree(_compiles(fused))
        if self.chosen and not known:
            compilation = time.perf_counter() - start
            by_graph, by_kernels = time_graph(), seconds_of(fused)
            self.chosen = agree(by_kernels < by_graph)
            taken = "fused kernels" if self.chosen else "the graph"
            rank_zero_info(
                f"model.compile: true takes {taken} for {self._name} (time of a batch of tasks: graph "
                f"{1e3 * by_graph:.3g} ms, kernels {1e3 * by_kernels:.3g} ms; compiled in {compilation:.0f} s)"
            )

    def run(self, by_kernels: Callable[[], Result], by_graph: Callable[[], Result]) -> Result:
        """What kernels give where they are chosen; from where others are needed that do not compile on, the graph."""
        if self.chosen:
            try:
                return by_kernels()
            except Exception as error:
                if out_of_memory(error):
                    raise
                result = by_graph()  # raises what the function itself is to blame for
                self.chosen = False
                _warn_of_failure(error)
                return result
        return by_graph()


def _hindrance(module: nn.Module, draws: bool | None) -> str:
    """Why kernels cannot be had, in words; nothing where they can."""
    if others := {parameter.device.type for parameter in module.parameters()} - {"cpu", "cuda"}:
        return f"there are no fused kernels for {others.pop()}"
    if draws is not False:
        return "the network draws random numbers, which fused kernels would draw otherwise"
    return ""


def _single_precision(module: nn.Module) -> bool:
    plain = all(parameter.dtype == torch.float32 for parameter in module.parameters())
    return plain and not any(
        map(torch.is_autocast_enabled, {parameter.device.type for parameter in module.parameters()})
    )


def _compiles(fused: Callable[[], Any]) -> bool:
    """Whether kernels come out; where not, a warning says why, since the graph computes the same."""
    if missing := missing_compiler():
        warnings.warn(
            f"model.compile: {missing} on this machine, which could make a meta-step a third shorter: install one, or "
            "set model.compile to graph",
            stacklevel=4,
        )
        return False
    try:
        fused()
    except Exception as error:
        _warn_of_failure(error)
        return False
    return True


def _warn_of_failure(error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    warnings.warn(f"model.compile: the graph is run as it is, since Inductor failed: {reason}", stacklevel=5)
