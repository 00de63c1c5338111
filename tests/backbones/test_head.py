"""The cut between the last layer of a network and everything before."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_meta.backbones import MLP, Conv4, ResNet12, VisionTransformer, WideResNet
from lightning_meta.backbones.head import LinearHead
from lightning_meta.errors import MetaLearningError

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


class Recorder:
    """What a layer is given."""

    def __init__(self, layer: nn.Module) -> None:
        self.inputs: list[Tensor] = []
        layer.register_forward_pre_hook(lambda _, inputs: self.inputs.append(inputs[0]))


@pytest.mark.parametrize("name", NETWORKS)
def test_without_the_head_a_network_gives_exactly_its_features(name: str) -> None:
    make, shape, place, width = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    head, x = LinearHead(network), torch.randn(5, *shape)
    weights = {key: tensor.detach() for key, tensor in network.named_parameters()}
    recorder = Recorder(network.get_submodule(place))
    outputs = network(x)
    features = functional_call(network, head.without(weights), (x,))
    assert features.shape == (5, width)
    torch.testing.assert_close(features, recorder.inputs[0], rtol=1e-12, atol=1e-12)
    assert (head.features, head.outputs) == (width, 3)
    torch.testing.assert_close(head.linear(head.of(weights), features), outputs)
    assert torch.equal(network(x), outputs)  # and is left as it was


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
    assert torch.equal(functional_call(layer, head.without(weights), (x,)), x)


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
    functional_call(network, head.without(weights), (torch.randn(2, 6),)).sum().backward()
    assert {name for name, tensor in weights.items() if tensor.grad is not None} == {"1.weight", "1.bias"}


def test_a_frozen_head_is_left_out_as_well() -> None:
    network = MLP(3, 6, (4,))
    head, x = LinearHead(network), torch.randn(2, 6)
    body = head.body(dict(network.named_parameters()))
    torch.testing.assert_close(functional_call(network, head.without(body), (x,)), nn.Sequential(*list(network)[:3])(x))


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
