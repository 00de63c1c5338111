"""Checkpoints that are given tasks of other ways or inputs than they were trained on: right, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_meta import algorithms
from lightning_meta.algorithms import MAML, NearestNeighbour, PrototypicalNetworks
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.data import ArrayEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from tests.helpers import glyphs, tasks_of, trainer

INNER = InnerLoop(steps=1, evaluation_steps=1)
METHODS = [
    kind
    for kind in (getattr(algorithms, name) for name in algorithms.__all__)
    if issubclass(kind, MetaLearner) and "Policy" not in kind.__name__ and kind is not algorithms.TRPOMAML
]


def learner_of(kind: Any, outputs: int, **settings: Any) -> MetaLearner:
    torch.manual_seed(0)
    if kind is algorithms.LearnedOptimizer:
        settings |= {
            "optimization_steps": 2,
            "inner": InnerLoop(algorithms.LearnedOptimizer(MLP(2, 4)).inner.optimizer),
        }
    elif not kind.compares:
        settings |= {"inner": INNER}
    settings |= {"weights": [1.0]} if kind is algorithms.GradientCombination else {}
    learner: MetaLearner = kind(MLP(outputs, 784, hidden=[8]), compile=False, task_chunk=4, **settings)
    return learner


@pytest.mark.parametrize("kind", METHODS)
def test_a_checkpoint_is_tested_at_other_ways_or_refused(kind: Any, tmp_path: Path) -> None:
    data = {"test_tasks": 2, "validation_tasks": 0, "test_classes": 10}
    run, path = trainer(tmp_path, max_steps=1), tmp_path / "five.ckpt"
    run.fit(learner_of(kind, 5), glyphs(ways=5, **data))
    run.save_checkpoint(path)
    for ways in (3, 10):
        learner = learner_of(kind, ways)  # as the command line builds it
        again = trainer(tmp_path)
        if kind.any_ways:
            again.test(learner, glyphs(ways=ways, **data), ckpt_path=path, verbose=False, weights_only=True)
            assert learner.scores.confusion is not None and learner.scores.confusion.shape == (ways, ways)
            continue
        for tested, settings in (
            (learner, {"ckpt_path": path}),
            (kind.load_from_checkpoint(path, backbone=MLP(5, 784, hidden=[8])), {}),
        ):
            with pytest.raises(MetaLearningError) as error:
                again.test(tested, glyphs(ways=ways, **data), verbose=False, weights_only=True, **settings)
            assert str(error.value).startswith(
                f"data.ways is {ways}, but the checkpoint was trained at 5 ways, and {kind.__name__} has one output "
                "for each way: set data.ways to 5, or train PrototypicalNetworks"
            )


@pytest.mark.usefixtures("float64")
def test_nearest_neighbours_compare_what_a_network_without_a_head_gives() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.Tanh())
    task = tasks_of(glyphs(shots=2, queries=2).draw("test", torch.arange(1)))[0]
    task = task._replace(support_x=task.support_x.double(), query_x=task.query_x.double())
    learner = NearestNeighbour(body, compile=False)
    found = learner.predictions(learner.meta_parameters(), task, {}).query[-1]
    cosine = functional.cosine_similarity(body(task.query_x)[:, None], body(task.support_x)[None], dim=-1)
    torch.testing.assert_close(found, cosine.view(-1, 3, 2).amax(-1).detach(), rtol=1e-9, atol=1e-12)


def test_nearest_neighbours_train_a_network_without_a_head(tmp_path: Path) -> None:
    def learner() -> NearestNeighbour:
        return NearestNeighbour(nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.Tanh()), compile=False, task_chunk=4)

    trained, data = learner(), glyphs(train_ways=6, test_tasks=2)
    before, run = trained.backbone[1].weight.detach().clone(), trainer(tmp_path)  # type: ignore[index, union-attr]
    run.fit(trained, data)
    assert trained.classifier is not None and trained.classifier.weight.shape == (8, 6)
    assert not torch.equal(trained.backbone[1].weight, before)  # type: ignore[index]
    run.test(trained, data, verbose=False)
    run.save_checkpoint(tmp_path / "trained.ckpt")
    other = learner()
    trainer(tmp_path).test(other, data, ckpt_path=tmp_path / "trained.ckpt", verbose=False, weights_only=True)
    expected = trained.scores.intervals["query_accuracy"].mean
    torch.testing.assert_close(other.scores.intervals["query_accuracy"].mean, expected, rtol=0, atol=0)
    with pytest.raises(MetaLearningError, match=r"cannot take inputs of shape \(3, 5\)"):
        trainer(tmp_path).fit(learner(), arrays((5,)))


def arrays(shape: tuple[int, ...], **changes: Any) -> ArrayEpisodes:
    x = np.random.default_rng(0).random((40, *shape), np.float32)
    settings: dict[str, Any] = {"ways": 3, "validation_classes": 0, "test_classes": 4, "meta_batch_size": 2}
    return ArrayEpisodes(
        x=x, y=np.arange(10).repeat(4), **settings | {"test_tasks": 2, "validation_tasks": 0} | changes
    )


def conv(size: int, channels: int = 1, head: Any = "flatten") -> nn.Module:
    return Conv4(3, channels=channels, filters=2, image_size=size, head=head)


SHAPES: dict[str, Any] = {  # what a network was trained on, what it is then given, and a network for each
    "size": ((1, 16, 16), (1, 32, 32), lambda: conv(16), lambda: conv(32)),
    "channels": ((1, 16, 16), (3, 16, 16), lambda: conv(16), lambda: conv(16, 3)),
    "features": ((6,), (4,), lambda: MLP(3, 6, hidden=[4]), lambda: MLP(3, 4, hidden=[4])),
}


@pytest.mark.parametrize("case", SHAPES)
def test_inputs_of_another_shape_are_refused_by_both_shapes(case: str, tmp_path: Path) -> None:
    own, other, network, network_of_other = SHAPES[case]
    run, path, settings = trainer(tmp_path, max_steps=1), tmp_path / "one.ckpt", {"compile": False, "task_chunk": 2}
    run.fit(MAML(network(), INNER, **settings), arrays(own))
    run.save_checkpoint(path)
    loaded = MAML.load_from_checkpoint(path, weights_only=True, backbone=network())
    said = f"the checkpoint was trained on inputs of shape {own}, but ArrayEpisodes gives {other}: set data.x to what"
    runs: list[Any] = [
        lambda: trainer(tmp_path).test(
            MAML(network_of_other(), INNER), arrays(other), ckpt_path=path, weights_only=True
        ),
        lambda: trainer(tmp_path).fit(
            MAML(network_of_other(), INNER), arrays(other), ckpt_path=path, weights_only=True
        ),
        lambda: trainer(tmp_path).test(loaded, arrays(other)),
    ]
    for start in runs:
        with pytest.raises(MetaLearningError) as error:
            start()
        assert str(error.value).startswith(said)
    with pytest.raises(MetaLearningError) as error:
        loaded.adapt_to(torch.rand(3, *other), [0, 1, 2])
    trained = ", ".join(map(str, own))
    assert f"cannot take inputs of shape {(3, *other)}" in str(error.value)
    assert str(error.value).endswith(f"Give examples of the shape that it was trained on, (rows, {trained})")


def test_a_network_that_takes_every_size_says_so_and_is_not_trained_further(tmp_path: Path) -> None:
    def learner() -> MetaLearner:
        return PrototypicalNetworks(conv(16, head="mean"), compile=False, task_chunk=2)

    run, path = trainer(tmp_path, max_steps=1), tmp_path / "one.ckpt"
    run.fit(learner(), arrays((1, 16, 16)))
    run.save_checkpoint(path)
    with pytest.warns(
        UserWarning, match=r"of shape \(1, 16, 16\), but ArrayEpisodes gives \(1, 32, 32\), which the net"
    ):
        trainer(tmp_path).test(learner(), arrays((1, 32, 32)), ckpt_path=path, verbose=False, weights_only=True)
    with pytest.raises(MetaLearningError, match="a fit goes on with its own data"):
        trainer(tmp_path).fit(learner(), arrays((1, 32, 32)), ckpt_path=path, weights_only=True)


def test_weights_that_do_not_fit_for_another_reason_say_that_one(tmp_path: Path) -> None:
    def learner(units: int) -> MetaLearner:
        return MAML(MLP(3, 6, hidden=[units]), INNER, compile=False, task_chunk=2)

    run, path = trainer(tmp_path, max_steps=1), tmp_path / "one.ckpt"
    run.fit(learner(4), arrays((6,)))
    run.save_checkpoint(path)
    with pytest.raises(MetaLearningError, match="comes from a different architecture"):
        trainer(tmp_path).test(learner(5), arrays((6,)), ckpt_path=path, weights_only=True)
