"""The inner loop with constant inner gradients: what is differentiated, and what is not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_meta.inner import SGD, Adam, InnerOptimizer, LayerRates, MetaSGD, last, unroll
from lightning_meta.params import Params

pytestmark = pytest.mark.usefixtures("float64")

ORDER = torch.arange(12).view(3, 4)


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(12, 4), torch.randn(4)


def run(rule: InnerOptimizer, start: Tensor, meta: Params, second_order: bool) -> list[Params]:
    x, _ = data()

    def loss(fast: Params, rows: Tensor, step: int) -> Tensor:
        return (step + 1) * (x[rows] @ fast["w"]).sin().sum()

    return [fast for fast, _ in unroll(loss, rule, {"w": start}, meta, ORDER, second_order=second_order)]


@pytest.mark.parametrize("rule", [SGD(0.1), Adam(0.1, 0.5), MetaSGD(0.1), LayerRates(0.1, 3)])
def test_both_orders_take_the_same_steps(rule: InnerOptimizer) -> None:
    _, start = data()
    meta = rule.learned({"w": start})
    first, second = run(rule, start, meta, False), run(rule, start, meta, True)
    assert len(first) == len(second) == 4
    torch.testing.assert_close(first, second)


def test_the_loss_is_told_the_number_of_the_step() -> None:
    x, start = data()
    expected = start.clone()
    for step, rows in enumerate(ORDER):
        expected = expected - 0.1 * (step + 1) * (x[rows] @ expected).cos() @ x[rows]
    torch.testing.assert_close(run(SGD(0.1), start, {}, True)[-1]["w"], expected)


def test_constant_gradients_leave_the_identity() -> None:
    _, start = data()
    jacobian = torch.func.jacrev(lambda start: run(SGD(0.1), start, {}, False)[-1]["w"])(start)
    torch.testing.assert_close(jacobian, torch.eye(4), rtol=0, atol=0)
    curved = torch.func.jacrev(lambda start: run(SGD(0.1), start, {}, True)[-1]["w"])(start)
    assert (curved - torch.eye(4)).abs().max() > 0.01


def test_constant_gradients_do_not_reach_what_the_loss_holds_beside_the_weights() -> None:
    """Norms by step, or a body that is not adapted."""
    _, start = data()

    def end(held: Tensor, second_order: bool) -> Tensor:
        steps = unroll(lambda fast, rows, step: (held * fast["w"]).sin().sum(), SGD(0.1), {"w": start}, {}, ORDER,
                      second_order=second_order)  # fmt: skip
        return last(steps)[0]["w"].sum()

    assert torch.func.grad(end)(torch.ones(4), False).count_nonzero() == 0
    assert torch.func.grad(end)(torch.ones(4), True).abs().min() > 1e-4


@pytest.mark.parametrize("second_order", [True, False])
def test_the_arithmetic_of_a_rule_is_differentiated_in_any_case(second_order: bool) -> None:
    """The weights after k steps with rates r_i are w - sum r_i g_i, so d/dr_i = -g_i for constant g."""
    _, start = data()
    rates = torch.tensor([0.1, 0.2, 0.3])
    way = run(LayerRates(steps=3), start, {"w": rates}, second_order)
    jacobian = torch.func.jacrev(lambda r: run(LayerRates(steps=3), start, {"w": r}, second_order)[-1]["w"])(rates)
    for step in range(3):
        gradient = (way[step]["w"] - way[step + 1]["w"]) / rates[step]
        constant = torch.allclose(jacobian[:, step], -gradient)
        assert constant == (not second_order or step == 2)  # the last rate moves no gradient


class Stateful(InnerOptimizer):
    """Moves by a state that the start of the loop is given, and halves it."""

    def init(self, fast: Params) -> Any:
        return torch.ones(())

    def update(self, grads: Params, state: Any, fast: Params, meta: Params, step: int) -> tuple[Params, Any]:
        return {"w": fast["w"] - state * meta["factor"] * grads["w"]}, state / 2


@pytest.mark.parametrize("second_order", [True, False])
def test_the_state_that_is_given_is_used_and_differentiated(second_order: bool) -> None:
    def end(state: Tensor) -> tuple[Tensor, Tensor]:
        steps = unroll(
            lambda fast, rows, step: fast["w"].sum(), Stateful(), {"w": torch.zeros(2)}, {"factor": torch.tensor(4.0)},
            ORDER, state, second_order,
        )  # fmt: skip
        fast, left = last(steps)
        return fast["w"].sum(), left

    state = torch.tensor(3.0)
    moved, left = end(state)
    assert moved == -2 * 4 * (3 + 1.5 + 0.75)
    assert left == 3 / 8
    assert torch.func.grad(lambda state: end(state)[0])(state) == -2 * 4 * 1.75


@pytest.mark.parametrize("second_order", [True, False])
def test_constant_gradients_leave_no_graph_of_the_loss(second_order: bool) -> None:
    _, start = data()
    end = run(SGD(0.1), start.requires_grad_(), {}, second_order)[-1]["w"]
    seen, edge = set(), [end.grad_fn]
    while edge:
        node = edge.pop()
        if node is not None and node not in seen:
            seen.add(node)
            edge += [parent for parent, _ in node.next_functions]
    assert any("Mv" in type(node).__name__ for node in seen) == second_order
