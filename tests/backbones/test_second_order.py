"""Meta-gradients through the larger networks: vectorised, looped, compiled, and by finite differences."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import VisionTransformer, WideResNet
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.params import map_params
from tests.helpers import gradient, image_episode, tasks_of

pytestmark = pytest.mark.usefixtures("float64")

PATHS: dict[str, dict[str, Any]] = {
    "vectorised": {"chunk": None},
    "looped": {"chunk": 1},
    "compiled": {"chunk": None, "compiled": True},
}


def vision_transformer() -> nn.Module:
    """A tiny one whose head does not start at zero, which would hide all before it, nor its positions near zero."""
    network = VisionTransformer(3, image_size=8, patch_size=4, layers=1, heads=2, width=8)
    nn.init.normal_(network.heads.head.weight, std=0.5)
    nn.init.normal_(network.encoder.pos_embedding)
    return network


class Encoder(nn.Module):
    """A person's own network of PyTorch's transformer layers, on the rows of an image; two even heads, batch first."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x[:, 0]).mean(1))


class Attention(nn.Module):
    """The attention module by itself, which has a fast path of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        return self.head(self.attention(x, x, x, need_weights=False)[0].tanh().mean(1))


TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "vision transformer": vision_transformer,
    "encoder": Encoder,
    "encoder, norm first": lambda: Encoder(norm_first=True),
    "attention": Attention,
}


def learner_of(network: Callable[[], nn.Module], training: bool = True) -> MAML:
    torch.manual_seed(0)
    return MAML(network(), InnerLoop(SGD(0.1), 1, evaluation_steps=1), replace_norms=True).train(training)


def tasks() -> Episode:
    torch.manual_seed(1)
    return image_episode()


@pytest.mark.parametrize(
    ("network", "path", "training"),
    [  # there is a fast path outside training
        *itertools.product(TRANSFORMERS, ("vectorised", "looped"), (True, False)),
        ("vision transformer", "compiled", True),  # tracing takes seconds
    ],
)
def test_attention_equals_finite_differences(network: str, path: str, training: bool) -> None:
    learner, episode = learner_of(TRANSFORMERS[network], training), tasks()
    grads = gradient(learner, episode, **PATHS[path]).grads
    params = learner.meta_parameters()
    for _ in range(2):
        direction = map_params(torch.randn_like, params)

        def loss_at(distance: float) -> Tensor:
            moved = map_params(lambda p, d: p + distance * d, params, direction)  # noqa: B023
            losses = [learner.outer_loss(moved, task, {}, torch.zeros(()))[0] for task in tasks_of(episode)]
            return torch.stack(losses).mean()

        slope = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
        ours = sum((grads[name] * direction[name]).sum() for name in grads)
        torch.testing.assert_close(ours, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("network", TRANSFORMERS)
def test_evaluation_is_the_same_vectorised_and_looped(network: str) -> None:
    learner, episode = learner_of(TRANSFORMERS[network], training=False), tasks()
    with torch.no_grad():
        together = learner.all_predictions(episode)
        single = [learner.all_predictions(chunk) for chunk in episode.chunks(1)]
    for ours, *looped in zip(together, *single, strict=True):
        torch.testing.assert_close(ours, torch.cat(looped), rtol=1e-10, atol=1e-12)


def test_attention_is_left_as_it_was() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    gradient(learner_of(Attention), tasks())
    assert (
        (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == before == (True, True)
    )


def test_a_wide_resnet_is_the_same_vectorised_and_looped() -> None:
    learner, episode = learner_of(lambda: WideResNet(3, channels=1, depth=10, width=1)), tasks()
    vectorised, looped = (gradient(learner, episode, **PATHS[path]).grads for path in ("vectorised", "looped"))
    torch.testing.assert_close(vectorised, looped, rtol=1e-9, atol=1e-12)
