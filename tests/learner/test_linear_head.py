"""The cut between the last layer of a network and everything before."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta.backbones import MLP, Conv4, ResNet12, VisionTransformer, WideResNet
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.linear_head import LinearHead

pytestmark = pytest.mark.usefixtures("float64")

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, int]] = {
    "conv4": (lambda: Conv4(3, filters=4), (1, 28, 28), "13", 4),
    "conv4 flatten": (lambda: Conv4(3, filters=4, head="flatten"), (1, 28, 28), "13", 16),
    "mlp": (lambda: MLP(3, 20, (8, 6), batch_norm=True), (20,), "7", 6),
    "mlp without hidden layers": (lambda: MLP(3, 20, ()), (20,), "1", 20),
    "resnet12": (lambda: ResNet12(3, filters=(2, 3, 4, 5)), (3, 16, 16), "6", 5),
    "wide resnet": (lambda: WideResNet(3, 1, depth=10, width=1), (1, 8, 8), "8", 64),
    "transformer": (lambda: VisionTransformer(3, layers=1, width=8), (1, 28, 28), "heads.head", 8),
    "without a bias": (lambda: nn.Sequential(nn.Linear(20, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)), (20,), "2", 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_head_on_the_features_that_the_head_is_given(name: str) -> None:
    make, shape, place, width = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    head, x = LinearHead(network), torch.randn(5, *shape)
    weights = {key: tensor.detach() for key, tensor in network.named_parameters()}
    with head.watched() as given:
        outputs = network(x)
    assert (head.name, head.in_features, head.out_features) == (place, width, 3)
    assert [features.shape for features in given] == [(5, width)]
    layer = network.get_submodule(place)
    expected = functional.linear(given[0], layer.weight, layer.bias)
    torch.testing.assert_close(expected, outputs, rtol=1e-12, atol=1e-12)
    assert torch.equal(head.outputs(weights, given[0]), outputs)
    assert torch.equal(head.outputs({}, given[0]), outputs)  # by its own, which may be frozen
    other = {name: 2 * tensor for name, tensor in head.of(weights).items()}
    torch.testing.assert_close(head.outputs(weights | other, given[0]), 2 * outputs)
    assert torch.equal(network(x), outputs)
    assert len(given) == 1  # no longer watched


@pytest.mark.parametrize("name", NETWORKS)
def test_body_and_head_are_the_whole(name: str) -> None:
    make, _, place, _ = NETWORKS[name]
    network = make()
    head, weights = LinearHead(network), dict(network.named_parameters())
    body, last = head.body(weights), head.of(weights)
    assert {**body, **last}.keys() == weights.keys()
    assert not body.keys() & last.keys()
    assert {key.rpartition(".")[0] for key in last} == {place}
    assert all((body | last)[key] is weight for key, weight in weights.items())


@pytest.mark.parametrize("last", [nn.Identity(), nn.Dropout(0)])
def test_what_does_nothing_may_follow(last: nn.Module) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 3), last)
    assert LinearHead(network).of(dict(network.named_parameters())).keys() == {"2.weight", "2.bias"}


def test_a_lone_linear_layer_is_its_own_head() -> None:
    layer = nn.Linear(4, 3)
    head, weights = LinearHead(layer), dict(layer.named_parameters())
    assert head.of(weights).keys() == {"weight", "bias"}
    assert head.body(weights) == {}
    x = torch.randn(2, 4)
    with head.watched() as given:
        assert torch.equal(layer(x), head.outputs(weights, x))
    assert given[0] is x


def test_a_head_whose_name_begins_others_takes_its_own_weights_alone() -> None:
    """Layer 1 of twelve is no part of layer 11."""
    network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))
    network.add_module("1", nn.Linear(3, 3))
    head, weights = LinearHead(network), dict(network.named_parameters())
    assert head.of(weights).keys() == {"11.weight", "11.bias"}
    assert len(head.body(weights)) == 22


def test_the_features_are_differentiable_in_the_body_alone() -> None:
    network = MLP(3, 6, (4,))
    head = LinearHead(network)
    weights = {name: tensor.detach().requires_grad_() for name, tensor in network.named_parameters()}
    with head.watched() as given:
        functional_call(network, weights, (torch.randn(2, 6),))
    given[0].sum().backward()
    assert {name for name, tensor in weights.items() if tensor.grad is not None} == {"1.weight", "1.bias"}


def test_a_new_head_is_zero_and_whole() -> None:
    """Also where some of the network's own is frozen."""
    network = MLP(3, 6, (4,))
    network.get_submodule("3").bias.requires_grad_(False)
    fresh = LinearHead(network).zeros(5)
    assert {name: (tensor.shape, int(tensor.count_nonzero())) for name, tensor in fresh.items()} == {
        "3.weight": ((5, 4), 0),
        "3.bias": ((5,), 0),
    }


def test_a_head_may_be_called_by_keyword() -> None:
    class Named(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self[1](input=self[0](x))
            return outputs

    network, x = Named(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(5, 4)
    with LinearHead(network).watched() as given:
        network(x)
    assert torch.equal(given[0], network[0](x))


def test_a_head_that_shares_its_weight_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    with pytest.raises(MetaLearningError, match="Sequential shares the weight of its last layer, 1, with another"):
        LinearHead(network)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.GroupNorm(1, 3)), "Sequential ends with GroupNorm at 2, exp"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Conv1d(1, 1, 1))),
            "ends with Conv1d at 1.0, expected a torch",
        ),
        (nn.Conv2d(1, 3, 1), "model.backbone Conv2d ends with Conv2d at its root"),
        (nn.Flatten(), "model.backbone Flatten ends with Flatten at its root"),
        (nn.Identity(), "model.backbone Identity ends with Identity at its root"),
        (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)), "ends with LogSoftmax at 1, expected a torch.nn.Linear"),
    ],
)
def test_networks_that_end_otherwise_are_refused(network: nn.Module, said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        LinearHead(network)
