"""A graph gives what the function gives, at whatever values and shapes."""

import warnings

import pytest
import torch
from torch import Tensor

from lightning_meta.inner import Compiled
from lightning_meta.params import Params

pytestmark = pytest.mark.usefixtures("float64")


def test_a_graph_is_traced_once_for_each_shape_and_follows_the_values() -> None:
    calls = []

    def function(params: Params, x: Tensor) -> tuple[Tensor, Params]:
        calls.append(x.shape)
        return torch.func.grad(lambda weight: (weight * x).sin().sum())(params["weight"]), params

    compiled = Compiled(function)
    for size in (3, 3, 4, 3):
        params, x = {"weight": torch.randn(())}, torch.randn(size)
        slope, same = compiled(params, x)
        torch.testing.assert_close(slope, (x * (params["weight"] * x).cos()).sum())
        assert same["weight"] == params["weight"]
    assert calls == [(3,), (4,)]


def test_autocast_has_graphs_of_its_own() -> None:
    compiled = Compiled(lambda x, y: x @ y)
    x = torch.randn(2, 2, dtype=torch.float32)
    assert compiled(x, x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x, x).dtype == torch.bfloat16


def test_what_cannot_be_traced_runs_as_it_is_after_one_warning() -> None:
    def function(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    compiled = Compiled(function)
    with pytest.warns(UserWarning, match="cannot be traced, so it runs uncompiled") as record:
        assert compiled(-torch.ones(2)).tolist() == [1, 1]
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(torch.ones(3)).tolist() == [1, 1, 1]


def test_a_mistake_of_the_function_is_raised_and_is_no_reason_to_give_up() -> None:
    compiled = Compiled(lambda x, y: x @ y)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(torch.ones(2, 3), torch.ones(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(torch.ones(1, 2), torch.ones(2, 1)).item() == 2
