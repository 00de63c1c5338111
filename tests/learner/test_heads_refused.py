"""Backbones whose last layer cannot be treated apart, for all algorithms that do so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import ANIL, BOIL, FineTuning, MatchingNetworks, NearestNeighbour, PrototypicalNetworks
from lightning_meta.backbones import MLP
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from tests.helpers import glyphs, trainer

MAKERS: list[Callable[..., MetaLearner]] = [
    ANIL, BOIL, PrototypicalNetworks, MatchingNetworks, FineTuning, NearestNeighbour,
]  # fmt: skip


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 3), nn.GroupNorm(1, 3))


@pytest.mark.parametrize("settings", [{}, {"task_chunk": 1, "compile": False}])
@pytest.mark.parametrize("make", MAKERS)
def test_a_network_with_another_end_is_refused(make: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    said = "model.backbone Normed ends with GroupNorm at 2, expected a torch.nn.Linear: this algorithm treats"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(make(Normed(), **settings), glyphs())
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).test(make(Normed(), **settings), glyphs(test_tasks=2), verbose=False)
    assert not list(tmp_path.rglob("*.ckpt"))


class Softened(nn.Sequential):
    """Its head's outputs are not its own."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 4), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = super().forward(x)
        return outputs.log_softmax(-1)


class Reordered(nn.Module):
    """Its layers run in another order than they were given in."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = nn.Linear(784, 3)
        self.inputs = nn.Linear(784, 784)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.outputs(self.inputs(x.flatten(1)))
        return outputs


class Unused(Reordered):
    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.outputs(x.flatten(1))
        return outputs


class Tokens(nn.Sequential):
    """Its last layer runs on several rows for each input."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(2), nn.Unflatten(2, (16, 49)), nn.Linear(49, 4), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = super().forward(x)
        return outputs.mean((1, 2))


class Turned(Reordered):
    """A head that starts from zero hides that its outputs change sign."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(784, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = -5 * self.last(self.inputs(x.flatten(1)))
        return outputs


class Scaled(Turned):
    """A scale that starts from one hides that there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.normal_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.scale * self.last(self.inputs(x.flatten(1)))
        return outputs


class Repeated(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 3), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self[2](super().forward(x))
        return outputs


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (
            Softened,
            "Softened has its last torch.nn.Linear at 2, but changes what that gives: this algorithm",
        ),
        (Reordered, "Reordered has its last torch.nn.Linear at inputs, but changes what that gives"),
        (
            Unused,
            "model.backbone Unused has its last torch.nn.Linear at inputs, which runs 0 times, expected once .15, 784",
        ),
        (Turned, "Turned has its last torch.nn.Linear at last, but changes what that gives"),
        (Scaled, "Scaled has its last torch.nn.Linear at last, but changes what that gives"),
        (Repeated, "Repeated has its last torch.nn.Linear at 2, which runs 2 times, expected once .15, 3"),
        (Tokens, r"model.backbone Tokens has its last torch.nn.Linear at 3, which is given .15, 1, 16, 4., expected"),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_a_last_layer_that_is_not_the_end_is_refused(make: Any, backbone: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(make(backbone()), glyphs(shots=5))
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).test(make(backbone()), glyphs(shots=5, test_tasks=2), verbose=False)


def frozen(*places: str) -> nn.Module:
    network = MLP(3, 784, (8,))
    for place in places:
        network.get_submodule(place).requires_grad_(False)
    return network


@pytest.mark.parametrize(("algorithm", "place"), [(ANIL, "3"), (BOIL, "1")])
def test_an_inner_loop_without_anything_to_adapt_is_refused(algorithm: Any, place: str, tmp_path: Path) -> None:
    said = f"MLP has no parameter with requires_grad among those that {algorithm.__name__} adapts: unfreeze some, or"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(algorithm(frozen(place)), glyphs())


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda network: ANIL(network), "1"),
        (lambda network: BOIL(network), "3"),
        (lambda network: FineTuning(network, InnerLoop(steps=0, evaluation_steps=2)), "3"),
        (PrototypicalNetworks, "3"),
    ],
)
def test_what_is_frozen_stays_and_the_rest_learns(make: Any, place: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = frozen(place)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learner = make(network)
    run = trainer(tmp_path, max_steps=2)
    run.fit(learner, glyphs(test_tasks=2))
    run.test(learner, glyphs(test_tasks=2), verbose=False)
    for name, value in network.state_dict().items():
        moved = not torch.equal(value, before[name])
        unused = isinstance(learner, FineTuning | PrototypicalNetworks) and name.startswith("3.")
        assert moved == (not name.startswith(place) and not unused), name


@pytest.mark.parametrize("make", [PrototypicalNetworks, MatchingNetworks, NearestNeighbour])
def test_comparing_classes_needs_classes(make: Any, tmp_path: Path) -> None:
    said = f"data.class_path is SinusoidEpisodes, whose targets are real values, but {make.__name__} compares classes"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).test(make(MLP(1)), SinusoidEpisodes(test_tasks=2), verbose=False)
