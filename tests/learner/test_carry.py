"""A carry of its own for every task, in training and evaluation: rows stay with their task, whatever the chunk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_meta.backbones import MLP
from lightning_meta.episode import Episode, Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, meta_gradient
from lightning_meta.params import Params
from tests.helpers import PATHS, glyphs, image_episode, network, sgd, trainer

WIDTH = 2


class Counting(MetaLearner):
    """Weighs a task's loss by its own carry, which counts the task's meta-steps and notes its number."""

    carry_per_task = True

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, InnerLoop(SGD(0.1), 0, evaluation_steps=0), **settings)
        self.left: list[Any] = []

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        loss = self.query_loss(self.adapted_params(params), task) * carry["steps"]
        return loss, {"steps": carry["steps"] + 1, "marks": carry["marks"] + task.task_ids}

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        found = super().predictions(params, task, carry)
        return Predictions(*(part + carry["marks"].sum() for part in found))

    def training_carry(self, episode: Episode) -> Any:
        number = episode.task_ids.to(next(self.parameters()).dtype)
        return {"steps": number + 1, "marks": number[:, None] * torch.ones(WIDTH)}

    def evaluation_carry(self, episode: Episode) -> Any:
        return {"steps": torch.zeros(episode.tasks), "marks": 100.0 * episode.task_ids[:, None]}

    def store_carry(self, carry: Any) -> None:
        self.left.append(carry)


def gradient(learner: Counting, episode: Episode, path: str, **options: Any) -> MetaGradient:
    run = chunk_gradient(learner.outer_loss, carry_per_task=True)
    settings = dict(PATHS[path])
    run = Compiled(run) if settings.pop("compiled", False) else run
    arguments = learner.meta_parameters(), episode, learner.training_carry(episode), torch.zeros(())
    return meta_gradient(run, *arguments, carry_per_task=True, **settings, **options)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", PATHS)
def test_every_path_gives_every_task_its_own_row(path: str) -> None:
    torch.manual_seed(1)
    episode = image_episode()._replace(task_ids=torch.tensor([7, 3, 5]))
    learner = Counting(network())
    result = gradient(learner, episode, path)
    assert result.carry["steps"].tolist() == [9, 5, 7]
    assert result.carry["marks"].tolist() == [[14, 14], [6, 6], [10, 10]]
    model = network()
    losses = [
        nn.functional.cross_entropy(model(episode.query_x[task]), episode.query_y[task]) * factor
        for task, factor in enumerate((8, 4, 6))
    ]
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(result.losses, torch.stack(losses).detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(result.grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-12)
    assert not any(leaf.requires_grad for leaf in result.carry.values())


@pytest.mark.usefixtures("float64")
def test_the_reduction_leaves_the_carry_alone() -> None:
    torch.manual_seed(2)
    episode, learner = image_episode(), Counting(network())
    mean, total = (gradient(learner, episode, "chunked", reduction=reduction) for reduction in ("mean", "sum"))
    torch.testing.assert_close(mean.carry, total.carry)
    for name, grad in total.grads.items():
        torch.testing.assert_close(3 * mean.grads[name], grad)


@pytest.mark.parametrize("settings", [{"task_chunk": 1}, {"task_chunk": 3}, {"task_chunk": 4}, {"compile": False}])
def test_a_run_carries_row_by_row(settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    learner = Counting(MLP(3, inputs=784, hidden=[4]), optimizer=sgd, **{"task_chunk": 2} | settings)
    trainer(tmp_path).fit(learner, glyphs(meta_batch_size=4))
    assert [left["steps"].tolist() for left in learner.left] == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert [left["marks"][:, 0].tolist() for left in learner.left] == [[0, 2, 4, 6], [8, 10, 12, 14]]


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_evaluation_starts_from_its_own_carry(chunk: int, tmp_path: Path) -> None:
    torch.manual_seed(4)
    learner = Counting(MLP(3, inputs=784, hidden=[4]), task_chunk=chunk)
    data = glyphs(test_tasks=3)
    data.setup("test")
    episode = data.draw("test", torch.arange(3))
    found = learner.all_predictions(episode)
    for task in range(3):
        expected = learner.backbone(episode.query_x[task]) + 100.0 * task
        torch.testing.assert_close(found.query[task, 0], expected.detach())
    learner.ensemble = [(learner.meta_parameters(), learner.carry.tree())] * 2
    torch.testing.assert_close(learner.all_predictions(episode), found)


def test_only_one_rank_and_no_accumulation(tmp_path: Path) -> None:
    learner = Counting(MLP(3, inputs=784))
    with pytest.raises(MetaLearningError, match="accumulate_grad_batches is 2"):
        trainer(tmp_path, accumulate_grad_batches=2).fit(learner, glyphs())
    strategy = SimpleNamespace(checkpoint_io=None)
    learner._trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1, strategy=strategy)  # type: ignore
    with pytest.raises(MetaLearningError, match="Counting keeps the weights of every task .* there are 2: set trainer"):
        learner.setup("fit")
