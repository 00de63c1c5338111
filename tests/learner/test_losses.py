"""Losses: modules equal the functions of torch, are kept in checkpoints, and are blamed for what they do."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import MAML
from lightning_meta.cli import main
from lightning_meta.episode import Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner.losses import as_loss
from tests.cli.helpers import small
from tests.helpers import glyph_network, glyphs, trainer
from tests.learner.test_refusals import Wrong

WEIGHTS = [0.1, 2.0, 0.7]


def smoothed() -> nn.Module:
    return nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=0.2, ignore_index=2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        (lambda: nn.CrossEntropyLoss(), functional.cross_entropy),
        (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), partial(functional.cross_entropy, label_smoothing=0.1)),
        (
            smoothed,
            lambda x, y, reduction: functional.cross_entropy(
                x, y, torch.tensor(WEIGHTS), ignore_index=2, label_smoothing=0.2, reduction=reduction
            ),
        ),
        (lambda: nn.MultiMarginLoss(p=2), partial(functional.multi_margin_loss, p=2)),
    ],
)
def test_a_module_is_the_function_of_torch(module: Any, function: Any, reduction: str) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 6, 3), torch.randint(3, (4, 6))
    ours = partial(as_loss(module()), reduction=reduction)
    expected = torch.stack([function(x, y, reduction=reduction) for x, y in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(torch.stack([*map(ours, outputs, targets)]), expected)
    if not isinstance(module(), nn.MultiMarginLoss):
        torch.testing.assert_close(torch.func.vmap(ours)(outputs, targets), expected)


@pytest.mark.usefixtures("float64")
def test_a_regression_loss_keeps_its_settings() -> None:
    outputs, targets = torch.randn(5, 1), torch.randn(5, 1)
    ours = as_loss(nn.HuberLoss(delta=0.3))(outputs, targets, reduction="sum")
    torch.testing.assert_close(ours, functional.huber_loss(outputs, targets, delta=0.3, reduction="sum"))


def test_class_weights_are_exact_in_every_precision() -> None:
    """A learner in bfloat16 gives outputs in float32, which its weights must match."""
    loss: Any = as_loss(nn.CrossEntropyLoss(torch.tensor(WEIGHTS)))
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    expected = functional.cross_entropy(outputs, targets, torch.tensor(WEIGHTS))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert torch.equal(loss.to(dtype)(outputs, targets, reduction="mean"), expected)
    assert loss(outputs.double(), targets, reduction="mean").dtype == torch.float64
    assert loss.to("meta")(outputs.to("meta"), targets.to("meta"), reduction="mean").device.type == "meta"


def learn(loss: Any, tmp_path: Path, **settings: Any) -> MAML:
    learner = MAML(glyph_network(), InnerLoop(SGD(0.4), evaluation_steps=1), loss=loss, **settings)
    run = trainer(tmp_path, precision="64-true")
    run.fit(learner, glyphs())
    run.test(learner, glyphs(test_tasks=3), verbose=False)
    run.save_checkpoint(tmp_path / "own.ckpt")
    return learner


def test_a_learner_trains_and_scores_with_a_module_as_with_a_function(tmp_path: Path) -> None:
    weights = torch.tensor(WEIGHTS)

    def weighted(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return functional.cross_entropy(outputs, targets, weights.to(outputs), reduction=reduction)

    function = learn(weighted, tmp_path, task_chunk=4)
    module = learn(nn.CrossEntropyLoss(weights), tmp_path, task_chunk=4)
    torch.testing.assert_close(module.state_dict(), function.state_dict(), rtol=1e-9, atol=1e-11)
    for name, interval in module.scores.intervals.items():
        torch.testing.assert_close(interval.mean, function.scores.intervals[name].mean)
    episode = glyphs().draw("test", torch.arange(3))
    outputs = torch.randn(3, 2, episode.query_x.shape[1], 3)
    scores = module.scores.score(module.loss, Predictions(outputs, outputs, outputs), episode)
    for task in range(3):  # the mean by the weights, as torch takes it, and not the mean over rows
        expected = functional.cross_entropy(outputs[task, 1], episode.query_y[task], weights)
        torch.testing.assert_close(scores["query_loss"][task, 1], expected)


def test_a_checkpoint_holds_a_loss_of_torch(tmp_path: Path) -> None:
    learner = learn(smoothed(), tmp_path)
    assert not any("loss" in name for name in torch.load(tmp_path / "own.ckpt", weights_only=True)["state_dict"])
    loaded = MAML.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True, backbone=glyph_network())
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    expected = learner.loss(outputs, targets, reduction="mean")
    assert torch.equal(loaded.loss(outputs, targets, reduction="mean"), expected)


def test_the_command_line_takes_a_module(tmp_path: Path) -> None:
    arguments = small(tmp_path, steps=1)
    arguments += ["--model.loss=torch.nn.CrossEntropyLoss", f"--model.loss.weight={WEIGHTS}"]
    assert main(["fit", *arguments, "--model.loss.label_smoothing=0.2"]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    loss = MAML.load_from_checkpoint(last, weights_only=True).loss
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2] * 2)
    expected = functional.cross_entropy(outputs, targets, torch.tensor(WEIGHTS), label_smoothing=0.2)
    torch.testing.assert_close(loss(outputs, targets, reduction="mean"), expected)


class Branching(nn.Module):
    """Decides by a value."""

    reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = functional.cross_entropy(outputs, targets, reduction=self.reduction)
        return loss if loss.sum() > 0 else -loss


def branching(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    loss = functional.cross_entropy(outputs, targets, reduction=reduction)
    return loss if loss.sum() > 0 else -loss


def wrong(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return functional.cross_entropy(Wrong.apply(outputs), targets, reduction=reduction)


class Own(nn.Module):
    reduction = "mean"

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Branching(), r"^model.loss Branching: .*test_losses.py.*so MAML cannot be vectorised.*model.task_chunk to 1"),
        (branching, r"^model.loss branching: .*test_losses.py.*so MAML cannot be vectorised.*model.task_chunk to 1"),
        (partial(branching), "^model.loss branching: "),
        (wrong, "^model.loss wrong gets a wrong meta-gradient when tasks are vectorised.*or replace the loss"),
        (nn.CrossEntropyLoss(torch.ones(7)), r"model.loss does not fit .*\(weight tensor should be .*3 classes"),
        (nn.CrossEntropyLoss(reduction="sum"), "model.loss is CrossEntropyLoss with reduction sum, expected mean"),
        (nn.CrossEntropyLoss, "model.loss is CrossEntropyLoss, which takes no reduction, expected a function"),
        (nn.Linear(3, 1), "model.loss is Linear, which takes no reduction"),
        (lambda outputs, targets: outputs.sum(), "model.loss is <lambda>, which takes no reduction"),
        (Own(), "model.loss is Own, whose parameter temperature no method would train"),
        (lambda outputs, targets, reduction: outputs.sum(), r"does not fit .*with reduction none it gives shape \(\)"),
    ],
)
def test_a_loss_that_does_not_work_is_named(loss: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match=said) as error:
        trainer(tmp_path).fit(MAML(glyph_network(), loss=loss), glyphs())
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.filterwarnings("ignore:compile is true, but")
def test_a_loss_that_cannot_be_vectorised_runs_in_a_loop(tmp_path: Path) -> None:
    assert learn(Branching(), tmp_path, task_chunk=1).meta_steps == 2
