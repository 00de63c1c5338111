"""A loss whose backward pass gives gradients that are known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.mapping import with_gradient


@pytest.fixture
def params() -> dict[str, Tensor]:
    image = nn.Parameter(torch.randn(2, 3, 4, 5))
    return {"matrix": nn.Parameter(torch.randn(2, 3)), "image": image, "untouched": nn.Parameter(torch.randn(2))}


@pytest.fixture
def grads(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of which one lies otherwise in memory than its parameter, as kernels that are fused give it."""
    image = torch.randn(params["image"].shape).to(memory_format=torch.channels_last)
    return {"image": image, "matrix": torch.randn(params["matrix"].shape)}


def test_gradients_are_scaled_and_accumulated(params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    expected = {name: grad * 3.5 for name, grad in grads.items()}
    value = with_gradient(torch.tensor(7.0), grads, params)
    assert value == 7.0
    (value * 0.5).backward()
    (with_gradient(torch.tensor(7.0), grads, params) * 3).backward()
    for name, parameter in params.items():
        if name == "untouched":
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name])
            assert parameter.grad.stride() == parameter.stride()


def test_what_follows_gradients_follows_these(params: dict[str, Any], grads: dict[str, Tensor]) -> None:
    matrix, called = params["matrix"], []
    matrix.register_hook(lambda grad: called.append(grad.clone()))
    with_gradient(torch.tensor(1.0), grads, params).backward()
    torch.testing.assert_close(called, [grads["matrix"]])
    loss = with_gradient(torch.tensor(1.0), grads, params) + params["matrix"].sum()
    (found,) = torch.autograd.grad(loss, [matrix])
    torch.testing.assert_close(found, grads["matrix"] + 1)
