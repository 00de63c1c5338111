"""A loss whose backward pass gives gradients that are known: by autograd, and at once where nothing else follows it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.mapping import with_gradient


@pytest.fixture
def params() -> dict[str, Tensor]:
    image = nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    return {"matrix": nn.Parameter(torch.randn(2, 3)), "image": image, "untouched": nn.Parameter(torch.randn(2))}


@pytest.fixture
def grads(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.randn(params[name].shape) for name in ("image", "matrix")}


@pytest.mark.parametrize("alone", [False, True])
def test_gradients_are_scaled_and_accumulated(alone: bool, params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    expected = {name: grad * 3.5 for name, grad in grads.items()}
    value = with_gradient(torch.tensor(7.0), grads, params, alone)
    assert value == 7.0
    (value * 0.5).backward()
    (with_gradient(torch.tensor(7.0), grads, params, alone) * 3).backward()
    for name, parameter in params.items():
        if name == "untouched":
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name])
            assert parameter.grad.stride() == parameter.stride()


def test_a_first_gradient_may_meet_parameters_that_have_one(params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    params["image"].grad = torch.ones_like(params["image"])
    with_gradient(torch.tensor(1.0), grads, params, True).backward()
    torch.testing.assert_close(params["image"].grad, grads["image"] + 1)
    torch.testing.assert_close(params["matrix"].grad, grads["matrix"])


@pytest.mark.parametrize("late", [False, True])
def test_hooks_of_parameters_are_called(late: bool, params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    matrix, called = params["matrix"], []
    if late:
        matrix.register_post_accumulate_grad_hook(lambda parameter: called.append(parameter.grad.clone()))
    else:
        matrix.register_hook(lambda grad: called.append(grad.clone()))
    with_gradient(torch.tensor(1.0), grads, params, True).backward()
    torch.testing.assert_close(called, [grads["matrix"]])


def test_the_graph_holds_no_node_for_each_parameter(params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    def nodes(alone: bool) -> int:
        loss = with_gradient(torch.tensor(1.0), grads, params, alone)
        assert loss.grad_fn is not None
        return sum(following is not None for following, _ in loss.grad_fn.next_functions)

    assert nodes(alone=True) == 1 and nodes(alone=False) == 2
