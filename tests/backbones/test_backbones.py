"""Shapes that the papers name."""

import pytest
import torch
from torch import nn

from lightning_meta.backbones import MLP, Conv4, ResNet12


@pytest.mark.parametrize(
    ("arguments", "size", "features"),
    [
        ({}, 28, 64),
        ({"head": "flatten"}, 28, 256),
        ({"channels": 3, "filters": 32, "image_size": 84, "downsample": "max_pool", "head": "flatten"}, 84, 800),
        (
            {
                "channels": 3,
                "filters": 32,
                "image_size": 84,
                "downsample": "max_pool",
                "head": "flatten",
                "ceil_mode": True,
            },
            84,
            1152,
        ),
    ],
)
def test_conv4_has_the_features_of_the_papers(arguments: dict, size: int, features: int) -> None:
    network = Conv4(5, **arguments)
    head = network[-1]
    assert isinstance(head, nn.Linear)
    assert head.in_features == features
    assert network(torch.randn(2, arguments.get("channels", 1), size, size)).shape == (2, 5)


def test_conv4_of_omniglot_has_the_parameters_of_the_paper() -> None:
    convolutions = 64 * 9 + 64 + 3 * (64 * 64 * 9 + 64)
    assert sum(p.numel() for p in Conv4(5).parameters()) == convolutions + 4 * 128 + 64 * 5 + 5


def test_mlp_layers() -> None:
    network = MLP(1, hidden=[64, 64], activation=nn.Tanh)
    assert [type(layer).__name__ for layer in network] == ["Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear"]
    network = MLP(5, inputs=784, hidden=[256, 128, 64, 64], batch_norm=True)
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [256, 128, 64, 64, 5]
    assert network(torch.randn(3, 1, 28, 28)).shape == (3, 5)


def test_resnet12_has_the_parameters_of_the_paper() -> None:
    network = ResNet12(64)
    convolutions = 0
    for before, after in ((3, 64), (64, 160), (160, 320), (320, 640)):
        convolutions += 9 * before * after + 2 * 9 * after * after + before * after + 4 * 2 * after  # four norms
    assert sum(p.numel() for p in network.parameters()) == convolutions + 640 * 64 + 64
    assert network(torch.randn(2, 3, 84, 84)).shape == (2, 64)
