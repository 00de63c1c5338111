"""Lightning's callbacks and precisions that change a learner: their result is right, or they are refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from pytorch_lightning.plugins import DeepSpeedPrecision, FSDPPrecision

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.cli import main
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from tests.cli.helpers import small
from tests.helpers import glyphs, sgd, trainer

Weights = dict[str, torch.Tensor]


class Unfreezing(BaseFinetuning):
    """Of a person's own."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """Nothing."""


class EpochStarts(Callback):
    """The weights at the start of every epoch."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})


class Bringing(MAML):
    """A learner with a callback of its own."""

    def configure_callbacks(self) -> list[Callback]:
        return [BackboneFinetuning()]


def learner(kind: type[MAML] = MAML) -> MAML:
    torch.manual_seed(0)
    return kind(MLP(3, inputs=784, hidden=[4]), InnerLoop(), optimizer=sgd, compile=False, task_chunk=1)


@pytest.mark.parametrize(
    "callback",
    [BackboneFinetuning(), Unfreezing(), BatchSizeFinder(), LearningRateFinder(), ModelPruning("l1_unstructured")],
)
def test_a_callback_is_refused_before_it_changes_anything(callback: Callback, tmp_path: Path) -> None:
    own = learner()
    with pytest.raises(MetaLearningError, match=f"trainer.callbacks holds {type(callback).__name__}, which .*leave it"):
        trainer(tmp_path, callbacks=[callback]).fit(own, glyphs())
    assert all(parameter.requires_grad for parameter in own.parameters())


def test_a_callback_that_a_learner_brings(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="trainer.callbacks holds BackboneFinetuning"):
        trainer(tmp_path).fit(learner(Bringing), glyphs())


@pytest.mark.parametrize("plugin", [DeepSpeedPrecision("bf16-mixed"), FSDPPrecision("bf16-true")])
def test_a_precision_of_another_strategy(plugin: Any, tmp_path: Path) -> None:
    with pytest.raises(
        MetaLearningError, match=f"trainer.precision is bf16-.*, by {type(plugin).__name__}, .* 64-true"
    ):
        trainer(tmp_path, plugins=[plugin]).fit(learner(), glyphs())


def average(
    tmp_path: Path, start: float, epochs: int, steps: int, *others: Callback, **changes: Any
) -> tuple[MAML, list[Weights]]:
    """A run of epochs of two meta-batches with Lightning's averaging, and the weights at the start of each."""
    starts, averaging = EpochStarts(), StochasticWeightAveraging(0.01, int(start) if start >= 1 else start)
    own, callbacks = learner(), [starts, averaging, *others]
    changes = {"limit_train_batches": 2} | changes
    trainer(tmp_path, max_epochs=epochs, max_steps=steps, callbacks=callbacks, **changes).fit(own, glyphs())
    return own, starts.weights


@pytest.mark.filterwarnings("ignore:When using `Trainer")  # as noise.py leaves it out
@pytest.mark.parametrize(
    ("start", "epochs", "steps", "accumulated", "averaged"),
    [(2, 3, 6, 1, [1, 2]), (0.5, 4, 8, 1, [1, 2, 3]), (3, -1, 6, 1, [2]), (2, 3, 3, 2, [1, 2]), (3, 3, 4, {1: 2}, [2])],
)
def test_an_average_over_epochs(
    start: float, epochs: int, steps: int, accumulated: int | dict[int, int], averaged: list[int], tmp_path: Path
) -> None:
    """Also where the second and third epoch are shorter, so that their meta-steps are fewer than the first one's."""
    scheduled = [GradientAccumulationScheduler(accumulated)] if isinstance(accumulated, dict) else []
    own, starts = average(
        tmp_path, start, epochs, steps, *scheduled, **{} if scheduled else {"accumulate_grad_batches": accumulated}
    )
    for name, value in own.state_dict().items():
        expected = torch.stack([starts[epoch][name] for epoch in averaged]).mean(0)
        torch.testing.assert_close(value, expected)
        assert not torch.equal(value, starts[0][name])


@pytest.mark.parametrize(
    ("start", "epochs", "steps", "changes", "said"),
    [
        (1, -1, 4, {"limit_train_batches": None}, "ends in epoch 1, so that no trained weights would be averaged"),
        (1, 1, 4, {}, "from epoch 2 on, but the run ends in epoch 1,"),
        (5, 2, 4, {}, "from epoch 5 on, but the run ends in epoch 2,"),
        (3, -1, 4, {}, "from epoch 3 on, but the run ends in epoch 2,"),
        (2, 5, 5, {}, "ends in epoch 3 of 5, so that nothing would be averaged: .* trainer.max_steps to"),
        (
            0.8,
            -1,
            4,
            {},
            "whose swa_epoch_start 0.8 is a share of trainer.max_epochs, but that is -1: set",
        ),
        (2, 3, 2, {"accumulate_grad_batches": 2}, "from epoch 2 on, but the run ends in epoch 2 of 3,"),
    ],
)
def test_a_run_without_an_average(
    start: float, epochs: int, steps: int, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(MetaLearningError, match=said):
        average(tmp_path, start, epochs, steps, **changes)


class Stopping(Callback):
    """Ends the run in the midst of its second epoch, as its time or another callback may."""

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        trainer.should_stop = trainer.global_step == 3


@pytest.mark.parametrize(
    ("start", "epochs", "said"),
    [(1, 3, "in epoch 2, .*: the weights are those of the last"), (3, -1, "in epoch 2, .* put back the weights")],
)
def test_a_run_that_ends_before_its_average(start: int, epochs: int, said: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=said):
        own, starts = average(tmp_path, start, epochs, 6, Stopping())
    untrained = all(torch.equal(value, starts[0][name]) for name, value in own.state_dict().items())
    assert untrained == ("put back" in said)


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("start", [0.8, 2])
def test_a_trial_of_few_batches_is_too_short_for_an_average(start: float, batches: int, tmp_path: Path) -> None:
    average(tmp_path, start, 5, 5, fast_dev_run=batches)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"swa_lrs": math.nan}, "swa_lrs of .* is nan, expected a finite number"),
        ({"swa_lrs": [0.1, 0.2]}, r"swa_lrs of .* is \[0.1, 0.2\], expected .* as many as the optimizer has groups"),
        ({"annealing_epochs": -1}, "annealing_epochs of .* is -1, expected at least 0"),
        ({"annealing_strategy": "no"}, "annealing_strategy of .* is no, expected cos or linear"),
        ({"device": "nope"}, "device of .* is nope, expected a device of this machine"),
    ],
)
def test_settings_of_the_average(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    averaging = StochasticWeightAveraging(**{"swa_lrs": 0.01, "swa_epoch_start": 1} | settings)
    run = trainer(tmp_path, max_epochs=2, max_steps=4, limit_train_batches=2, callbacks=[averaging])
    with pytest.raises(MetaLearningError, match=said):
        run.fit(learner(), glyphs())


def test_the_settings_of_an_average_can_be_read_again(tmp_path: Path) -> None:
    arguments = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"]
    arguments += ["--trainer.callbacks.swa_epoch_start=1", "--trainer.limit_train_batches=1", "--trainer.max_epochs=2"]
    arguments += ["--model.compile=false", "--data.test_tasks=0"]
    assert main(["fit", *small(tmp_path), *arguments]) == 0
    (path,) = tmp_path.rglob("config.yaml")
    assert "device: cpu\n" in path.read_text()
    assert main(["fit", "-c", str(path)]) == 0
