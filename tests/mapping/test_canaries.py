"""Faults of PyTorch that this package works around: when one of these tests fails, a copy of ours can go."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("float64")


def second_order(network: nn.Module, vectorised: bool) -> Tensor:
    """The gradient of the squared norm of a gradient, added over three tasks."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 2, 4, 4)
    weights = {name: tensor.detach() for name, tensor in network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        inner = torch.func.grad(lambda w: torch.func.functional_call(network, w, (x,)).square().sum())(weights)
        moved = {name: weights[name] - 0.1 * grad for name, grad in inner.items()}
        return torch.func.functional_call(network, moved, (x,)).sin().sum()

    def total(weights: dict[str, Tensor]) -> Tensor:
        if vectorised:
            return torch.func.vmap(loss, (None, 0))(weights, x).sum()
        return torch.stack([loss(weights, one) for one in x]).sum()

    grads = torch.func.grad(total)(weights)
    return torch.cat([grad.flatten() for grad in grads.values()])


@pytest.mark.parametrize(
    "norm", [lambda: nn.BatchNorm2d(3, track_running_stats=False), lambda: nn.InstanceNorm2d(3, affine=True)]
)
def test_torch_still_differentiates_its_norms_wrongly_under_vmap(norm: Callable[[], nn.Module]) -> None:
    """`lightning_meta.backbones.norms` and `mapping.normalisation` are ours for this reason."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), norm(), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    looped, mapped = second_order(network, False), second_order(network, True)
    assert (looped - mapped).norm() > 1e-4 * looped.norm()


def test_torch_still_leaves_tensors_in_a_layer_under_two_names() -> None:
    """`lightning_meta.params.call` is ours for this reason."""
    layer = nn.Linear(2, 2)
    network = nn.ModuleDict({"one": layer, "two": layer})
    network.forward = lambda x: layer(x)
    own = layer.weight
    torch.func.functional_call(network, {"one.weight": torch.ones(2, 2)}, (torch.ones(1, 2),))
    assert layer.weight is not own
