"""What is said of an outer loss before training: tensors that would never learn, wrong returns, branches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import MAML, Reptile
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
        if self.how == "random":
            return loss * torch.rand(()), carry
        if self.how == "branching":
            return (loss if loss > 0 else -loss), carry
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
        ("a loss alone", r"Scaled.outer_loss returned a tensor of shape \(\), expected \(loss, carry\)"),
        ("rows of losses", r"expected \(loss, carry\) with a scalar loss"),
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
    with pytest.raises(MetaLearningError, match=r"Forgetful.outer_loss returned a carry that differs in structure"):
        trainer(tmp_path).fit(learner, glyphs())


def test_episodes_with_rows_for_other_steps_are_refused(tmp_path: Path) -> None:
    data = glyphs()
    draw = type(data).draw
    cut = type("Cut", (type(data),), {"draw": lambda *args: _without_the_last_step(draw(*args))})
    data.__class__ = cut
    learner = MAML(glyph_network(), InnerLoop(SGD(0.1), 2, evaluation_steps=1), compile=False)
    with pytest.raises(MetaLearningError, match="Cut, whose episodes bring an inner_order of 1 steps, .* for 2"):
        trainer(tmp_path).fit(learner, data)


def _without_the_last_step(episode: Episode) -> Episode:
    return episode._replace(inner_order=episode.inner_order[:, :-1])
