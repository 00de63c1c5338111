"""Checkpoints that do not belong to a learner are refused, whatever is another in them."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_meta import algorithms
from lightning_meta.algorithms import MAML, NearestNeighbour
from lightning_meta.backbones import MLP, GaussianPolicy
from lightning_meta.data import GlyphEpisodes, NavigationEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, LSTMOptimizer
from lightning_meta.learner import MetaLearner
from tests.helpers import glyphs, trainer

KINDS: dict[str, Any] = {name: getattr(algorithms, name) for name in algorithms.__all__}
METHODS = list(KINDS)
POLICIES = ("PolicyGradientMAML", "TRPOMAML")  # which act, where the others classify
ALIKE = {"FineTuning", "NearestNeighbour"}  # methods that train the same network, and differ in how they test it


class OtherGlyphs(GlyphEpisodes):
    """Data of another name."""


def network(name: str = "MAML") -> nn.Module:
    """What a method trains."""
    return GaussianPolicy(2, hidden=[4]) if name in POLICIES else MLP(3, inputs=784, hidden=[4])


def tasks(name: str) -> Any:
    """What it is trained on."""
    if name in POLICIES:
        return NavigationEpisodes(trajectories=2, horizon=3, meta_batch_size=2)
    return glyphs(meta_batch_size=2, queries=1)


def learner(name: str) -> MetaLearner:
    """Of a method, with few inner steps."""
    names = inspect.signature(KINDS[name]).parameters
    settings: dict[str, Any] = {"compile": False, "task_chunk": 2}
    if name == "LearnedOptimizer":
        return KINDS[name](network(), InnerLoop(LSTMOptimizer(units=2), 2, evaluation_steps=2), optimization_steps=4)
    if "inner" in names:
        settings["inner"] = InnerLoop(steps=1, evaluation_steps=1)
    return KINDS[name](network(name), **settings)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of each method, after one meta-step."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in METHODS:
        run = trainer(folder, max_steps=1)
        run.fit(learner(name), tasks(name))
        run.save_checkpoint(folder / f"{name}.ckpt")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_loads_as_its_own_method_alone(name: str, checkpoints: Path) -> None:
    path = checkpoints / f"{name}.ckpt"
    for other in METHODS:
        if other == name:
            own = KINDS[name].load_from_checkpoint(path, weights_only=True, backbone=network(name))
            assert (type(own), own.meta_steps) == (KINDS[name], 1)
        elif not {name, other} <= ALIKE:
            with pytest.raises(MetaLearningError, match=f"was trained by {name}, but model is {other}: set model to"):
                KINDS[other].load_from_checkpoint(path, weights_only=True, backbone=network(other))
            with pytest.raises(MetaLearningError, match=f"was trained by {name}, but model is {other}"):
                learner(other).on_load_checkpoint(torch.load(path, weights_only=True))


@pytest.mark.parametrize(("name", "other"), [("FineTuning", "NearestNeighbour"), ("NearestNeighbour", "FineTuning")])
def test_methods_that_train_alike_test_each_other(name: str, other: str, checkpoints: Path) -> None:
    path = checkpoints / f"{name}.ckpt"
    one = learner(other)
    trainer(checkpoints).test(one, glyphs(queries=1, test_tasks=2), ckpt_path=path, weights_only=True, verbose=False)
    saved = torch.load(path, weights_only=True)["state_dict"]
    torch.testing.assert_close(dict(one.state_dict()), dict(saved), rtol=0, atol=0)


def test_settings_that_a_method_does_not_take_are_said(checkpoints: Path) -> None:
    with pytest.raises(MetaLearningError, match="that NearestNeighbour does not take .*trainer.test as ckpt"):
        NearestNeighbour.load_from_checkpoint(checkpoints / "FineTuning.ckpt", weights_only=True, backbone=network())


def rebuilt(change: str) -> tuple[MetaLearner, Any]:
    """A learner and its data, with one change."""
    options: dict[str, Any] = {"compile": False, "task_chunk": 2}
    data = glyphs(meta_batch_size=2, queries=1)
    backbone = MLP(3, inputs=784, hidden=[5 if change == "width" else 4])
    if change == "ways":
        backbone, data = MLP(2, inputs=784, hidden=[4]), glyphs(ways=2, meta_batch_size=2, queries=1)
    if change == "data":
        data = OtherGlyphs(ways=3, train_classes=8, test_classes=4, meta_batch_size=2, queries=1)
    if change == "optimizer":
        options["optimizer"] = torch.optim.SGD
    if change == "rate":
        options["optimizer"] = lambda parameters: torch.optim.Adam(parameters, lr=0.01)
    if change == "schedule":
        options["lr_scheduler"] = torch.optim.lr_scheduler.CosineAnnealingLR
    return MAML(backbone, InnerLoop(steps=1, evaluation_steps=1), **options), data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("width", "different architecture or algorithm: backbone.* has shape .4, 784., expected .5, 784."),
        ("ways", "data.ways is 2, but the checkpoint was trained at 3 ways, and MAML has one output for each way"),
        ("data", "trained on GlyphEpisodes, but data is OtherGlyphs: .* set data to GlyphEpisodes"),
        ("optimizer", "dampening of the outer optimizer is 0, but the run goes on with the state of one that knows no"),
        ("rate", "lr of the outer optimizer is 0.01, but the run goes on with the state of one that has 0.001: set"),
        ("schedule", "model.lr_scheduler is .*, but the run goes on with the state of its lr_scheduler"),
        ("optimizer_states", "does not hold the state of the outer optimizer: .* cut down to its weights"),
        ("loops", "does not hold how far the run was"),
        ("GlyphEpisodes", "does not hold how many tasks of GlyphEpisodes were used"),
    ],
)
def test_a_fit_does_not_go_on_from_what_is_another(change: str, said: str, checkpoints: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(checkpoints / "MAML.ckpt", weights_only=True)
    checkpoint.pop(change, None)
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    own, data = rebuilt(change)
    run = trainer(tmp_path, max_steps=1 if change == "schedule" else 2)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    with pytest.raises(MetaLearningError, match=said):
        run.fit(own, data, ckpt_path=tmp_path / "changed.ckpt", weights_only=True)
    torch.testing.assert_close(dict(own.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_tensors_of_another_precision_become_the_learners(kind: torch.dtype, checkpoints: Path) -> None:
    checkpoint = torch.load(checkpoints / "MAML.ckpt", weights_only=True)
    checkpoint["state_dict"] = {name: tensor.to(kind) for name, tensor in checkpoint["state_dict"].items()}
    own = learner("MAML")
    own.on_load_checkpoint(checkpoint)
    own.load_state_dict(checkpoint["state_dict"])
    assert {tensor.dtype for tensor in own.parameters()} == {torch.float32}
