"""What is said of an outer loss before training: tensors that would never learn, wrong returns, branches."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import FOMAML, IMAML, MAML, Reptile
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.params import Params
from tests.helpers import glyph_network, glyphs, trainer


class Scaled(MAML):
    """MAML with a second module, called as ``how`` says."""

    how = "directly"

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, InnerLoop(SGD(0.1), evaluation_steps=1), task_chunk=4, compile=False, **settings)
        self.scale = nn.Linear(1, 1)
        self.shift = nn.Parameter(torch.zeros(()))

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        loss, carry = super().outer_loss(params, task, carry, progress)
        if self.how == "directly":
            return self.scale(loss.view(1, 1)).squeeze(), carry
        if self.how == "a parameter":
            return loss + self.shift, carry
        if self.how == "the backbone":
            return loss + self.backbone(task.query_x).square().mean(), carry
        if self.how == "not at all":
            return loss + params["shift"], carry
        if self.how == "logging":
            self.log("train/term", loss)
        if self.how == "NumPy":
            return loss * float(np.random.rand()), carry
        if self.how == "Python":
            random.shuffle(rows := [1, 2])
            return loss * rows[0], carry
        if self.how == "a generator":
            return loss * torch.rand((), generator=torch.Generator()), carry
        if self.how == "random":
            return loss * torch.rand(()), carry
        if self.how == "branching":
            loss = loss if loss > 0 else -loss
        if self.how == "a loss alone":
            return loss
        if self.how == "rows of losses":
            return loss.expand(2), carry
        return self.run("scale", params, loss.view(1, 1)).squeeze() + params["shift"], carry


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("directly", r'uses scale.weight, scale.bias directly, .*Use self.run\("scale", params, x\) instead'),
        ("a parameter", r'uses shift directly, which would never learn: .*Use params\["shift"\] instead'),
        ("the backbone", r"uses backbone.*directly.*Use self.run_backbone\(weights, x\) instead"),
        (
            "not at all",
            r"does not depend on scale.weight, scale.bias through .*use self.run\(\"scale\", params, x\), or",
        ),
        (
            "a loss alone",
            r"Scaled.outer_loss \(test_outer_loss.py, line \d+\) returned a tensor of shape \(\), expected \(loss,",
        ),
        ("rows of losses", r"returned a loss of shape \(2,\), expected \(loss, carry\) with a scalar loss"),
        ("logging", r"Scaled logs inside outer_loss \(test_outer_loss.py, line \d+\).*override log_training"),
        ("NumPy", r"^Scaled \(test_outer_loss.py, line \d+\) draws from NumPy's random"),
        ("Python", r"^Scaled \(test_outer_loss.py, line \d+\) draws from Python's random"),
        ("a generator", r"^Scaled \(test_outer_loss.py, line \d+\) draws from a torch.Generator of its own"),
        ("branching", r"\(test_outer_loss.py, line \d+\), so Scaled cannot be vectorised"),
    ],
)
def test_what_would_never_learn_or_work_is_refused_before_training(how: str, said: str, tmp_path: Path) -> None:
    learner = Scaled(glyph_network())
    learner.how = how
    with pytest.raises(MetaLearningError, match=said) as error:
        trainer(tmp_path).fit(learner, glyphs())
    assert len(str(error.value).splitlines()) <= 3


def test_a_second_module_that_is_run_at_its_params_learns(tmp_path: Path) -> None:
    learner = Scaled(glyph_network())
    learner.how = "as it should be"
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    trainer(tmp_path).fit(learner, glyphs())
    moved = {name for name, tensor in learner.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"scale.weight", "scale.bias", "shift"} <= moved


def test_an_outer_loss_may_draw_random_numbers(tmp_path: Path) -> None:
    learner = Scaled(glyph_network())
    learner.how = "random"
    learner.scale, learner.shift = None, None  # type: ignore[assignment]
    trainer(tmp_path).fit(learner, glyphs())
    assert learner.task_map.draws


class Forgetful(Reptile):
    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        loss, _ = super().outer_loss(params, task, carry, progress)
        return loss, {}


def test_a_carry_that_was_not_returned_is_named(tmp_path: Path) -> None:
    learner = Forgetful(glyph_network(), InnerLoop(Adam(0.01, beta1=0.0), evaluation_steps=1), compile=False)
    with pytest.raises(
        MetaLearningError,
        match=r"Forgetful.outer_loss \(test_outer_loss.py, line \d+\) returned a carry that differs in structure",
    ):
        trainer(tmp_path).fit(learner, glyphs())


class Weighted(FOMAML):
    """Its second module acts on the inner gradients alone, which FOMAML holds constant."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone, InnerLoop(SGD(0.1), evaluation_steps=1), compile=False)
        self.weighting = nn.Linear(1, 1)

    def inner_objective(self, params: Params, task: Episode) -> Callable[[Params, Tensor, int], Tensor]:
        base = super().inner_objective(params, task)
        return lambda fast, rows, step: self.run("weighting", params, base(fast, rows, step).view(1, 1)).squeeze()


def test_a_module_that_first_order_gradients_do_not_reach_is_refused_unless_frozen(tmp_path: Path) -> None:
    learner = Weighted(glyph_network())
    with pytest.raises(
        MetaLearningError, match=r"does not depend on weighting.weight, .* second_order=False holds const"
    ):
        trainer(tmp_path).fit(learner, glyphs())
    learner.weighting.requires_grad_(False)
    trainer(tmp_path, max_steps=1).fit(learner, glyphs())


class RandomInner(IMAML):
    def inner_objective(self, params: Params, task: Episode) -> Callable[[Params, Tensor, int], Tensor]:
        base = super().inner_objective(params, task)
        return lambda fast, rows, step: base(fast, rows, step) * torch.rand(())


def test_random_numbers_of_a_method_are_not_blamed_on_its_backbone(tmp_path: Path) -> None:
    learner = RandomInner(glyph_network(), InnerLoop(SGD(0.1), evaluation_steps=1), compile=False)
    said = r"^RandomInner \(test_outer_loss.py, line \d+\) draws random numbers in training, but RandomInner diff"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(learner, glyphs())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda order: order[:, :-1], "an inner_order of 1 steps, but model.inner asks for 2 steps"),
        (lambda order: order[:, 0], r"an inner_order of shape \(1, 3\), but model.inner asks for 2 steps"),
        (lambda order: order + 1, "an inner_order of rows 1 to 3, but a support set has 3"),
    ],
)
def test_an_inner_order_that_does_not_fit_is_refused(
    change: Callable[[Tensor], Tensor], said: str, tmp_path: Path
) -> None:
    class Changed(type(glyphs())):  # type: ignore[misc]
        def draw(self, *args: Any) -> Episode:
            episode = super().draw(*args)
            return episode._replace(inner_order=change(episode.inner_order))

    data = glyphs()
    data.__class__ = Changed
    learner = MAML(glyph_network(), InnerLoop(SGD(0.1), 2, evaluation_steps=1), compile=False)
    with pytest.raises(MetaLearningError, match=rf"is Changed \(test_outer_loss.py, line \d+\), whose .* {said}"):
        trainer(tmp_path).fit(learner, data)
