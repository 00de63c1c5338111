"""When fused kernels are compiled and taken, and that they train the same weights."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.fusion import Compile, Fusion
from lightning_meta.mapping import missing_compiler
from tests.helpers import network


class Meta:
    """A meta-step that is said to take so many seconds by the graph and by kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, graph: float = 1.0, kernels: float = 0.5) -> None:
        self.seconds, self.compiled = {self.graph: graph, self.kernels: kernels}, False
        monkeypatch.setattr("lightning_meta.learner.fusion.seconds_of", lambda run: self.seconds[run])

    def graph(self) -> None:
        pass

    def kernels(self) -> None:
        self.compiled = True

    def settle(self, setting: Compile = True, steps: float = 1e6, draws: bool = False, **arguments: Any) -> bool | None:
        fusion = arguments.pop("fusion", None) or Fusion(setting)
        module = arguments.pop("module", None) or network()
        fused = arguments.pop("fused", self.kernels)
        if not fusion.settled:
            operations = arguments.pop("operations", 1000)
            agree = arguments.pop("agree", bool)
            time_graph = lambda: self.seconds[self.graph]  # noqa: E731
            fusion.settle(module, draws, time_graph, fused, lambda: operations, steps, agree)
        return fusion.chosen


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Meta:
    monkeypatch.setattr("lightning_meta.learner.fusion.missing_compiler", lambda: "")
    return Meta(monkeypatch)


def test_a_long_run_takes_what_is_faster(step: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    assert step.settle() and step.compiled
    assert not Meta(monkeypatch, kernels=1.5).settle()


def test_a_short_run_compiles_nothing(step: Meta) -> None:
    assert step.settle(steps=100) is False and not step.compiled


def test_other_devices_have_no_kernels(step: Meta) -> None:
    assert step.settle(module=network().to("meta")) is False
    with pytest.raises(MetaLearningError, match="model.compile is fused, but there are no fused kernels for meta: set"):
        step.settle("fused", module=network().to("meta"))


@pytest.mark.parametrize("setting", ["graph", False])
def test_nothing_is_compiled_unasked(step: Meta, setting: Compile) -> None:
    assert step.settle(setting) is False and not step.compiled


def test_kernels_that_are_asked_for_need_no_long_run(step: Meta) -> None:
    assert step.settle("fused", steps=1) and step.compiled


@pytest.mark.parametrize("module", [nn.Linear(2, 2).double(), nn.Linear(2, 2).bfloat16()], ids=["64", "bf16"])
def test_other_precisions_are_compiled_on_request_alone(step: Meta, module: nn.Module) -> None:
    assert step.settle(module=module) is False
    assert step.settle("fused", module=module)


def test_what_draws_random_numbers_is_refused_on_request_and_left_alone_otherwise(step: Meta) -> None:
    assert step.settle(draws=True) is False
    with pytest.raises(MetaLearningError, match="model.compile is fused, but the network draws random numbers"):
        step.settle("fused", draws=True)


def test_deterministic_runs_time_nothing(step: Meta) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert step.settle() is False
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_has_no_graph_is_not_compiled(step: Meta) -> None:
    assert step.settle(operations=0) is False and not step.compiled


def test_a_resumed_run_compiles_nothing_on_what_it_cannot(step: Meta) -> None:
    fusion = Fusion(True)
    fusion.restore(True)
    assert step.settle(fusion=fusion, draws=True) is False


def test_another_run_chooses_again(step: Meta) -> None:
    fusion = Fusion(True)
    assert step.settle(fusion=fusion, steps=1) is False
    fusion.reopen()
    assert step.settle(fusion=fusion) is True


def test_ranks_agree(step: Meta) -> None:
    assert step.settle(agree=lambda opinion: False) is False


def test_a_resumed_run_takes_what_it_took(step: Meta) -> None:
    for fused in (True, False):
        fusion = Fusion(True)
        fusion.restore(fused)
        assert step.settle(fusion=fusion, steps=1) is fused
    given = Fusion("graph")
    given.restore(True)
    assert step.settle(fusion=given) is False


def test_a_failure_of_inductor_costs_no_run(step: Meta) -> None:
    def fails() -> None:
        raise RuntimeError("no such instruction\nat line 3")

    with pytest.warns(UserWarning, match="the graph is run as it is, since Inductor failed: no such instruction"):
        assert step.settle(fused=fails) is False


def test_without_a_compiler_a_line_says_what_one_would_gain(step: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_meta.learner.fusion.missing_compiler", lambda: "there is no C++ compiler")
    with pytest.warns(UserWarning, match="there is no C\\+\\+ compiler on this machine"):
        assert step.settle() is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a short run would not have compiled
        assert step.settle(steps=1) is False


def test_no_compiler_is_found_where_none_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "g++" in missing_compiler()


def test_kernels_that_fail_later_give_way_to_the_graph(step: Meta) -> None:
    """As those of another variant of the method, or of tasks of another size."""

    def fails() -> str:
        raise RuntimeError("no such instruction")

    def runs_out() -> str:
        raise torch.OutOfMemoryError

    fusion = Fusion(True)
    assert fusion.run(fails, lambda: "graph") == "graph"  # nothing is chosen
    assert step.settle(fusion=fusion)
    assert fusion.run(lambda: "kernels", fails) == "kernels"
    with pytest.raises(torch.OutOfMemoryError):  # which smaller chunks may mend
        fusion.run(runs_out, lambda: "graph")
    with pytest.raises(RuntimeError, match="no such instruction"):  # the method's own mistake
        fusion.run(fails, fails)
    with pytest.warns(UserWarning, match="the graph is run as it is, since Inductor failed: no such instruction"):
        assert fusion.run(fails, lambda: "graph") == "graph"
    assert fusion.run(fails, lambda: "graph") == "graph"
