"""Learners and adapted learners outlive the process: pickle and deepcopy give the same outputs and outer optimizer."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from lightning_meta import algorithms
from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.learner import MetaLearner
from tests.helpers import glyph_network, glyphs, trainer

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda given: pickle.loads(pickle.dumps(given)),
    "deepcopy": copy.deepcopy,
}
POLICIES = ("PolicyGradientMAML", "TRPOMAML")  # which learn from trajectories, not from labelled examples
LABELS = ["a", "b", "c"] * 2


class WithItsOwnDefault(MAML):
    """A method of a user's, with a default of its own that has no name."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adagrad(parameters, lr=0.25),
        **settings: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **settings)


def learner_of(name: str) -> MetaLearner:
    torch.manual_seed(0)
    kind = {"WithItsOwnDefault": WithItsOwnDefault}.get(name) or getattr(algorithms, name)
    learner: MetaLearner = kind(MLP(3, inputs=4, hidden=[5]))
    return learner


def assert_same_optimizer(copied: MetaLearner, learner: MetaLearner) -> None:
    own, other = (given._optimizer(given.parameters()) for given in (learner, copied))
    assert type(own) is type(other)
    own_group, other_group = ({**kind.param_groups[0], "params": None} for kind in (own, other))
    assert own_group == other_group


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", [*(name for name in algorithms.__all__ if name not in POLICIES), "WithItsOwnDefault"])
def test_an_adapted_learner_is_copied_with_its_outputs(name: str, how: str) -> None:
    adapted, x = learner_of(name).adapt_to(torch.randn(6, 4), LABELS, every_step=True), torch.randn(5, 4)
    copied = COPIES[how](adapted)
    assert torch.equal(copied(x), adapted(x)) and torch.equal(copied.steps(x), adapted.steps(x))
    assert copied.classes == adapted.classes
    assert_same_optimizer(copied._learner[0], adapted._learner[0])


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", [*algorithms.__all__, "WithItsOwnDefault"])
def test_a_learner_is_copied_with_its_weights_and_optimizer(name: str, how: str) -> None:
    learner = learner_of(name)
    copied = COPIES[how](learner)
    state = copied.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in learner.state_dict().items())
    assert dict(copied.hparams) == dict(learner.hparams)
    assert_same_optimizer(copied, learner)


def test_a_learner_is_copied_after_its_training_and_trains_on(tmp_path: Path) -> None:
    learner = MAML(glyph_network(), task_chunk=2)
    trainer(tmp_path, max_steps=1).fit(learner, glyphs(test_tasks=0))
    copied = COPIES["pickle"](learner)
    for number, given in enumerate((learner, copied)):
        trainer(tmp_path / str(number), max_steps=1).fit(given, glyphs(test_tasks=0))
    pairs = zip(learner.parameters(), copied.parameters(), strict=True)
    assert all(torch.equal(own, other) for own, other in pairs)


@pytest.mark.parametrize("how", COPIES)
def test_a_default_takes_arguments_by_their_names(how: str) -> None:
    learner = COPIES[how](learner_of("WithItsOwnDefault"))
    optimizer = learner._optimizer(parameters=learner.parameters())
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adagrad, 0.25)
