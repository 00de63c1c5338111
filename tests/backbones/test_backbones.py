"""Shapes that the papers name."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from lightning_meta.backbones import MLP, Conv4, ResNet12, VisionTransformer, WideResNet
from lightning_meta.errors import MetaLearningError


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


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (16, 10, 17.1), (22, 8, 17.2), (28, 10, 36.5)],
)
def test_wide_resnets_have_the_parameters_of_the_paper(depth: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        network = WideResNet(10, depth=depth, width=width)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "blocks"), [(10, 1), (16, 2)])
def test_wide_resnet_has_its_layers_and_shapes(depth: int, blocks: int) -> None:
    network = WideResNet(5, channels=1, depth=depth, width=2)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert len([part for part in convolutions if part.kernel_size == (3, 3)]) == 1 + 3 * 2 * blocks == depth - 3
    assert len([part for part in convolutions if part.kernel_size == (1, 1)]) == 3
    shapes = [x.shape[1:] for x in _between(network, torch.randn(2, 1, 28, 28))]
    expected = [(16, 28, 28), *[(32, 28, 28)] * blocks, *[(64, 14, 14)] * blocks, *[(128, 7, 7)] * blocks]
    assert shapes[: len(expected)] == expected
    assert shapes[-1] == (5,)


def test_wide_resnet_blocks_are_pre_activated() -> None:
    """With convolutions that give nothing, a block that changes no shape is the identity, and the head sees a ReLU."""
    network = WideResNet(5, depth=16, width=1)
    block = network[2]
    for part in block.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
    x = torch.randn(4, 16, 8, 8)
    assert torch.equal(block(x), x)
    widened = network[3]  # its shortcut is a convolution of the normalised and activated input
    nn.init.zeros_(widened.convolutions[-1].weight)
    torch.testing.assert_close(widened(3 * x + 7), widened(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("depth", [4, 12, 17])
def test_wide_resnets_that_cannot_be_are_refused(depth: int) -> None:
    with pytest.raises(MetaLearningError, match=f"model.backbone.depth is {depth}, expected 6 n . 4"):
        WideResNet(5, depth=depth)


@pytest.mark.parametrize("channels", [1, 3])
def test_vision_transformer_has_its_shapes(channels: int) -> None:
    network = VisionTransformer(5, channels, image_size=28, patch_size=7, layers=2, heads=4, width=32)
    patches, attention, perceptron = 32 * channels * 49 + 32, 4 * (32 * 32 + 32), 2 * 4 * 32 * 32 + 5 * 32
    tokens = 32 + 32 * (1 + 4 * 4)  # the class token, and the positions of it and of 4 x 4 patches
    expected = patches + tokens + 2 * (attention + perceptron + 2 * 64) + 64 + 5 * 32 + 5
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.randn(2, channels, 28, 28)).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patch_size": 8}, "model.backbone.image_size is 28, expected a multiple of patch_size, 8"),
        ({"width": 30}, "model.backbone.width is 30, expected a multiple of heads, 4"),
    ],
)
def test_vision_transformers_that_cannot_be_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        VisionTransformer(5, **arguments)


def _between(network: nn.Sequential, x: torch.Tensor) -> Iterator[torch.Tensor]:
    for layer in network:
        x = layer(x)
        yield x
