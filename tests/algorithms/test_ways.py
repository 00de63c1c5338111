"""Tasks of another number of classes in training than in tests, and networks without a head of that width."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta import algorithms
from lightning_meta.algorithms import (
    ANIL,
    MAML,
    FineTuning,
    MatchingNetworks,
    NearestNeighbour,
    PrototypicalNetworks,
    Reptile,
)
from lightning_meta.backbones import MLP
from lightning_meta.cli import main
from lightning_meta.data import GlyphEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from tests.cli.helpers import SHORT_RUN
from tests.helpers import PATHS, glyphs, gradient, image_episode, tasks_of, trainer

RATE = 0.4
LEARNED = [PrototypicalNetworks, MatchingNetworks]
ANY_WAYS = [*LEARNED, NearestNeighbour, FineTuning]


def body(width: int = 6, inputs: int = 64) -> nn.Sequential:
    """A network that gives features."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, width), nn.Tanh())


def with_head(outputs: int, **settings: Any) -> nn.Sequential:
    return nn.Sequential(*body(**settings), nn.Linear(6, outputs))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", ["vectorised", "looped"])
@pytest.mark.parametrize("algorithm", LEARNED)
def test_the_width_of_the_head_does_not_matter(algorithm: Any, path: str) -> None:
    torch.manual_seed(1)
    episode = image_episode(ways=3)
    expected = gradient(algorithm(with_head(3)), episode).grads
    for network in (body(), with_head(2), with_head(20)):
        found = gradient(algorithm(network), episode, **PATHS[path]).grads
        assert {name: grad for name, grad in found.items() if name.startswith("backbone.5.")}.keys() <= expected.keys()
        for name in dict(body().named_parameters()):
            torch.testing.assert_close(found[f"backbone.{name}"], expected[f"backbone.{name}"], rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("outputs", [2, 3, 20])
def test_fine_tuning_makes_a_head_as_wide_as_the_task(outputs: int) -> None:
    torch.manual_seed(1)
    task = tasks_of(image_episode(ways=3, steps=2))[0]
    learner = FineTuning(with_head(outputs), InnerLoop(steps=2, evaluation_steps=2, optimizer=SGD(lr=RATE)))
    found = learner.predictions(learner.meta_parameters(), task, {}).query
    model = with_head(3)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    for step in range(3):
        weights = dict(model.named_parameters())
        expected = functional_call(model, weights, (task.query_x,))
        torch.testing.assert_close(found[step], expected.detach(), rtol=1e-9, atol=1e-12)
        loss = functional.cross_entropy(model(task.support_x), task.support_y)
        with torch.no_grad():
            for weight, grad in zip(weights.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
                weight -= RATE * grad


def test_fine_tuning_adapts_to_more_classes_than_its_network_has_outputs() -> None:
    learner = FineTuning(with_head(2), InnerLoop(steps=1, evaluation_steps=60, optimizer=SGD(lr=0.5)))
    x = torch.eye(5, 64).view(5, 1, 8, 8) * 5
    adapted = learner.adapt_to(x, ["a", "b", "c", "d", "e"])
    assert adapted.head == "own" and adapted.backbone[-1].out_features == 5
    assert adapted(x).shape == (5, 5) and adapted(x).argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert adapted.backbone(x).argmax(1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("algorithm", ANY_WAYS)
def test_many_ways_in_training_and_few_in_tests(algorithm: Any, tmp_path: Path) -> None:
    """With networks of three widths, and a checkpoint that a network of another width goes on from."""
    data = glyphs(train_ways=6, test_tasks=4, validation_tasks=4)
    settings = {"compile": False, "task_chunk": 4}
    learner = algorithm(with_head(9, inputs=784), **settings)
    run = trainer(tmp_path, limit_val_batches=1, val_check_interval=1)
    run.fit(learner, data)
    run.save_checkpoint(tmp_path / "trained.ckpt")
    run.test(learner, data, verbose=False)
    assert learner.scores.confusion is not None and learner.scores.confusion.shape == (3, 3)
    expected = learner.scores.intervals["query_accuracy"].mean
    other = algorithm(with_head(3, inputs=784), **settings)
    trainer(tmp_path).test(other, glyphs(test_tasks=4), ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    torch.testing.assert_close(other.scores.intervals["query_accuracy"].mean, expected, rtol=0, atol=0)
    assert other.head.out_features == 9 and other.trained_on["ways"] == 3


@pytest.mark.parametrize("algorithm", LEARNED)
def test_a_network_that_gives_features_needs_no_head(algorithm: Any, tmp_path: Path) -> None:
    learner = algorithm(body(inputs=784))
    data = glyphs(train_ways=6, test_tasks=4)
    run = trainer(tmp_path)
    run.fit(learner, data)
    run.test(learner, data, verbose=False)
    assert learner.adapt_to(torch.rand(4, 1, 28, 28), [0, 1, 2, 3])(torch.rand(7, 1, 28, 28)).shape == (7, 4)


class HeadFirst(nn.Module):
    """Its head is made before its body."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.rise = nn.Linear(8, 6), nn.Linear(784, 8), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.rise(self.body(x.flatten(1))))
        return outputs


def test_a_head_that_is_not_made_last_is_not_taken_for_features(tmp_path: Path) -> None:
    said = "model.backbone HeadFirst gives what its torch.nn.Linear at head gives, but another module comes after"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(PrototypicalNetworks(HeadFirst()), glyphs())


@pytest.mark.parametrize("algorithm", [MAML, ANIL, Reptile])
def test_methods_with_one_output_for_each_way_are_refused(algorithm: Any, tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError) as error:
        trainer(tmp_path).fit(algorithm(MLP(3, 784)), glyphs(train_ways=5))
    assert str(error.value).startswith(f"data.train_ways is 5 and data.ways 3, but {algorithm.__name__} has one output")
    public = [getattr(algorithms, name) for name in algorithms.__all__]
    able = {kind.__name__ for kind in public if issubclass(kind, MetaLearner) and kind.any_ways}
    assert able == {name.__name__ for name in ANY_WAYS}
    assert all(name in str(error.value) for name in able)


def test_two_classes_are_enough(tmp_path: Path) -> None:
    data = GlyphEpisodes(ways=2, train_classes=2, validation_classes=2, test_classes=2, test_tasks=4, meta_batch_size=2)
    run, learner = trainer(tmp_path), MAML(MLP(2, 784))
    run.fit(learner, data)
    run.test(learner, data, verbose=False)
    assert learner.scores.confusion is not None and learner.scores.confusion.shape == (2, 2)


def test_a_run_of_many_ways_is_tested_at_few_by_its_configuration(tmp_path: Path) -> None:
    arguments = ["--model=PrototypicalNetworks", "--model.backbone=lightning_meta.backbones.MLP"]
    arguments += ["--model.backbone.inputs=784"]
    arguments += ["--model.compile=false", "--data=GlyphEpisodes", "--data.ways=6", "--data.train_classes=8"]
    arguments += ["--data.test_classes=8", "--data.validation_classes=0", "--data.test_tasks=4"]
    arguments += ["--data.validation_tasks=0", "--data.meta_batch_size=2", "--trainer.max_steps=2"]
    assert main(["fit", *arguments, f"--trainer.default_root_dir={tmp_path}", *SHORT_RUN]) == 0
    run = tmp_path / "experiment" / "version_0"
    checkpoint = run / "checkpoints" / "last.ckpt"
    for ways in (3, 8):
        assert main(["test", "-c", str(run / "config.yaml"), f"--data.ways={ways}", f"--ckpt_path={checkpoint}"]) == 0
    entries = json.loads(checkpoint.with_name("results.json").read_text())
    assert {entry["ways"] for entry in entries} == {3, 6, 8}
