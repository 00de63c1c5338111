"""Random layers that cannot be right are refused, with the line or the module that draws and with what to do."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import ANIL, IMAML, MAML, GradientCombination, PrototypicalNetworks, Reptile
from lightning_meta.errors import MetaLearningError
from tests.helpers import trainer
from tests.learner.test_randomness import Noise, glyphs, network
from tests.learner.test_refusals import Square


class Python(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + random.random())


class OfNumPy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + float(np.random.rand()))


class Own(nn.Module):
    generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


class Filled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape, dtype=x.dtype).uniform_()


COMBINED: Any = lambda backbone: GradientCombination(backbone, weights=[1.0])  # noqa: E731
REFUSED: list[tuple[Any, nn.Module, str]] = [
    (MAML, Python(), r"Sequential \(test_refused_randomness.py, line \d+\) draws from Python's random, .*: draw with"),
    (PrototypicalNetworks, OfNumPy(), "draws from NumPy's random"),
    (Reptile, Own(), "draws from a torch.Generator of its own"),
    (MAML, Filled(), "3 .Filled.: vmap: .* cannot be vectorised over tasks. Set model.task_chunk to 1"),
    (IMAML, nn.Dropout(0.5), "in training, at 3 .Dropout., but IMAML differentiates the minimum of one inner loss"),
    (COMBINED, Noise(), "at 3 .Noise., but GradientCombination takes the gradient of every inner step twice"),
    (MAML, nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 5), Square()), "gets a wrong meta-gradient when tasks are vec"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_cannot_be_right_is_refused(case: int, tmp_path: Path) -> None:
    method, part, said = REFUSED[case]
    learner = method(network(part, 784))
    state = torch.get_rng_state()
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(learner, glyphs())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_mapped_draws_in_a_loop(tmp_path: Path) -> None:
    learner = MAML(network(Filled(), 784), task_chunk=1, compile=False)
    trainer(tmp_path).fit(learner, glyphs())
    assert learner.task_map.draws


def test_a_dropout_after_the_last_layer_is_no_head() -> None:
    backbone = nn.Sequential(network(nn.Identity(), 784), nn.Dropout(0.5))
    with pytest.raises(MetaLearningError, match="ends with Dropout at 1, expected a torch.nn.Linear"):
        ANIL(backbone).head  # noqa: B018
    assert ANIL(nn.Sequential(network(nn.Identity(), 784), nn.Dropout(0))).head.name == "0.4"
