"""A graph gives what the function gives, at whatever values and shapes."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.mapping import Compiled, graph
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


def test_what_is_kept_from_autocast_stays_so() -> None:
    """A graph holds the casts of autocast, and where there were none, a replay adds none."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", enabled=False):
            kept = x @ x
        return kept, x @ x

    x = torch.randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for found, expected in zip(Compiled(function)(x), function(x), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


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


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * sum(x.tolist()),
        lambda x: x * float(x.numpy().sum()),
        lambda x: x * len(x[x > 0]),
        lambda x: x * x.max().item(),
    ],
)
def test_values_of_the_first_call_are_never_kept(function: Callable[[Tensor], Tensor]) -> None:
    compiled = Compiled(function)
    with pytest.warns(UserWarning, match="runs uncompiled"):
        compiled(torch.tensor([1.0, -2.0]))
    for x in (torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 5.0])):
        assert torch.equal(compiled(x), function(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda x, number: functional.leaky_relu(x, number),
        lambda x, number: torch.add(x, x, alpha=number),
        lambda x, number: x + torch.full((3,), number),
        lambda x, number: torch.func.vmap(lambda row: functional.elu(row, number))(x[:, None]),
        lambda x, number: torch.func.grad(lambda x: functional.threshold(x, number, 0.0).square().sum())(x),
        lambda x, number: functional.layer_norm(x, (3,), eps=number),
        lambda x, number: x[: number.to(torch.long)],
    ],
    ids=["slope", "alpha", "fill", "under vmap", "under grad", "eps", "length"],
)
def test_a_tensor_that_serves_as_a_number_is_never_kept(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    """PyTorch reads it where Python does not see that."""
    x, number = torch.tensor([-1.0, 0.3, 2.0]), torch.tensor(1.0)
    compiled = Compiled(lambda x: use(x, number), lambda: [number])
    with pytest.warns(UserWarning, match="cannot be traced, so it runs uncompiled"):
        compiled(x)
    number.fill_(2.0)
    assert torch.equal(compiled(x), use(x, number))


def test_tensors_that_are_used_without_being_given_are_followed() -> None:
    module = nn.BatchNorm1d(2, affine=False).double().eval()  # two buffers

    def function(params: Params) -> Tensor:
        return module.running_mean * sum(params.values())

    compiled = Compiled(function, module.buffers)
    one = {"a": torch.ones(())}
    assert compiled(one).tolist() == [0, 0]
    module.running_mean.fill_(2)
    assert compiled(one).tolist() == [2, 2]
    module.running_mean = torch.full((2,), 3.0)
    assert compiled(one).tolist() == [3, 3]


def test_what_is_given_and_not_used_otherwise_may_be_exchanged() -> None:
    """As averages of weights do with ``parameter.data = average``; tracing for each would take time and memory."""
    module, calls = nn.Linear(2, 2), []

    def function(params: Params, x: Tensor) -> Tensor:
        calls.append(1)
        return x @ params["weight"] + module.bias

    compiled, x = Compiled(function, module.parameters), torch.randn(3, 2)
    for change in range(6):
        module.weight.data = torch.randn(2, 2)
        assert torch.equal(compiled({"weight": module.weight.detach()}, x), x @ module.weight + module.bias)
        if change > 2:
            module.bias.data = torch.randn(2)  # which is used
    assert len(calls) == 3
    assert [len(graphs) for graphs in compiled._graphs.values()] == [2]  # older ones hold memory alone


def test_rows_may_lie_in_memory_as_they_like() -> None:
    def function(x: Tensor) -> Tensor:
        return x.flatten(1).cumsum(1)

    x = torch.randn(4, 2, 3)
    layouts = [x, x.transpose(1, 2).contiguous().transpose(1, 2), x[:1].expand(4, 2, 3), torch.randn(4, 2, 6)[..., ::2]]
    layouts.append(torch.randn(20).unfold(0, 6, 2)[:4].unflatten(1, (2, 3)))
    for first in layouts:
        compiled = Compiled(function)
        for layout in (first, *layouts):
            assert torch.equal(compiled(layout), function(layout))
        assert len(compiled._graphs) == 1


def test_other_names_are_another_graph() -> None:
    compiled = Compiled(lambda params: {name: tensor * len(name) for name, tensor in params.items()})
    assert compiled({"a": torch.ones(())}) == {"a": 1}
    assert compiled({"bb": torch.ones(())}) == {"bb": 2}


def test_running_out_of_memory_is_no_reason_to_give_up() -> None:
    full = True

    def function(x: Tensor) -> Tensor:
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x

    compiled = Compiled(function)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(torch.ones(2))
    full = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(torch.ones(2)).tolist() == [1, 1]


def test_a_mistake_of_the_function_is_raised_and_is_no_reason_to_give_up() -> None:
    compiled = Compiled(lambda x, y: x @ y)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(torch.ones(2, 3), torch.ones(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(torch.ones(1, 2), torch.ones(2, 1)).item() == 2


def test_what_has_too_many_operations_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor) -> Tensor:
        for _ in range(30):
            x = x.sin()
        return x

    x = torch.randn(3)
    monkeypatch.setattr(graph, "MAX_OPERATIONS", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(Compiled(function)(x), function(x))
    monkeypatch.setattr(graph, "MAX_OPERATIONS", 29)
    with pytest.warns(UserWarning, match="has more than 29 operations, .* shorten sequences or inner loop"):
        assert torch.equal(Compiled(function)(x), function(x))


def test_tracing_that_takes_long_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(graph, "_PATIENCE", 0.0)
    Compiled(lambda x: x.sin().cos().exp())(torch.randn(3))
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "the meta-gradient is being traced to a graph"
    ]


def test_graphs_that_were_dropped_are_traced_again() -> None:
    calls = []

    def function(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.sin()

    compiled, x = Compiled(function), torch.randn(3)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), x.sin())
    assert len(calls) == 1
    compiled.release()
    torch.testing.assert_close(compiled(x), x.sin())
    assert len(calls) == 2
