"""A figure that nothing logs is refused before the first meta-step, and every one that is offered is logged."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import ReduceLROnPlateau
from torch import nn
from torch.nn import functional

from lightning_meta.algorithms import MAML, LearnedOptimizer, PolicyGradientMAML, PrototypicalNetworks
from lightning_meta.backbones import MLP, Conv4, GaussianPolicy
from lightning_meta.data import NavigationEpisodes, QuadraticEpisodes, SinusoidEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop, LSTMOptimizer
from tests.helpers import glyphs, trainer

INNER = InnerLoop(SGD(0.1), evaluation_steps=2)
TASKS: dict[str, Any] = {"meta_batch_size": 2, "validation_tasks": 2}
FAMILIES: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "classification": (partial(MAML, Conv4(3, filters=2), INNER), partial(glyphs, **TASKS)),
    "metric": (partial(PrototypicalNetworks, Conv4(3, filters=2)), partial(glyphs, **TASKS)),
    "regression": (
        partial(MAML, MLP(1, hidden=[4]), INNER, loss=functional.mse_loss),
        partial(SinusoidEpisodes, **TASKS),
    ),
    "policies": (
        partial(PolicyGradientMAML, GaussianPolicy(2, hidden=[4]), INNER),
        partial(NavigationEpisodes, trajectories=2, horizon=3, **TASKS),
    ),
    "learned optimizer": (
        partial(
            LearnedOptimizer,
            nn.Linear(4, 1, bias=False),
            InnerLoop(LSTMOptimizer(), 2, evaluation_steps=2),
            optimization_steps=4,
            loss=functional.mse_loss,
        ),
        partial(QuadraticEpisodes, dimensions=4, **TASKS),
    ),
}


def fit(family: str, tmp_path: Path, *callbacks: Callback, **settings: Any) -> Any:
    """A run of one meta-step and one validation."""
    learner, data = FAMILIES[family]
    changes: dict[str, Any] = {"max_steps": 1, "val_check_interval": 1, "limit_val_batches": 1, "max_epochs": -1}
    changes |= {"num_sanity_val_steps": 0, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    run = trainer(tmp_path, callbacks=[*callbacks], **changes)
    run.fit(learner(task_chunk=1, compile=False, **settings), data())
    return run


WATCHES: dict[str, tuple[Callable[[str], list[Callback]], str]] = {
    "checkpoint": (lambda monitor: [ModelCheckpoint(monitor=monitor)], "checkpoint.monitor"),
    "stopping": (
        lambda monitor: [EarlyStopping(monitor)],
        "the monitor of EarlyStopping among trainer.callbacks",
    ),
    "schedule": (lambda monitor: [], "model.lr_scheduler.monitor"),
}


@pytest.mark.parametrize("watch", WATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_figure_that_nothing_logs(family: str, watch: str, tmp_path: Path) -> None:
    callbacks, setting = WATCHES[watch]
    for monitor in ("x", "val_los", "test_loss", "val/query_loss/step_99", "val_loss_transductive"):
        schedule = {"lr_scheduler": partial(ReduceLROnPlateau, monitor=monitor)} if watch == "schedule" else {}
        with pytest.raises(MetaLearningError) as refusal:
            fit(family, tmp_path, *callbacks(monitor), **schedule)
        said = str(refusal.value)
        assert said.startswith(f"{setting} is {monitor}, which nothing logs: ")
        assert ("did you mean val_loss?" in said) == (monitor == "val_los")
        assert "val_loss, val_loss_nontransductive" in said
        assert ("of the scored inner steps (0, 1, " in said) == (family != "metric")
        assert ("val_accuracy" in said) == (family in ("classification", "metric"))
        assert len(said) < 600


@pytest.mark.parametrize("family", FAMILIES)
def test_every_figure_that_a_validation_logs_can_be_monitored(family: str, tmp_path: Path) -> None:
    logged = {name for name in fit(family, tmp_path).callback_metrics if name.startswith("val")}
    run = fit(family, tmp_path, *(ModelCheckpoint(tmp_path / "second", monitor=name) for name in sorted(logged)))
    best = [callback.best_model_score for callback in run.checkpoint_callbacks if callback.monitor]
    assert len(best) == len(logged) >= 6 and None not in best
    labels = family in ("classification", "metric")
    assert logged == {name for names in run.lightning_module.scores.logged("val", labels) for name in names}


def test_an_accuracy_of_real_targets(tmp_path: Path) -> None:
    with pytest.raises(
        MetaLearningError, match="is val_accuracy, but .* real targets, .*: watch val_loss, with mode min"
    ):
        fit("regression", tmp_path, EarlyStopping("val_accuracy"))


def test_what_a_person_s_own_learner_logs(tmp_path: Path) -> None:
    class Own(MAML):
        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.log("x", torch.ones(()))

    watch = ModelCheckpoint(monitor="x")
    changes: dict[str, Any] = {"val_check_interval": 1, "limit_val_batches": 1, "check_val_every_n_epoch": None}
    run = trainer(tmp_path, callbacks=[watch], max_epochs=-1, enable_checkpointing=True, **changes)
    run.fit(Own(Conv4(3, filters=2), INNER, compile=False), glyphs(**TASKS))
    assert watch.best_model_score == 1


class OwnCallback(Callback):
    """May log anything."""


@pytest.mark.parametrize(
    ("monitor", "others"),
    [("step", []), ("epoch", []), ("train/loss", []), ("lr-Adam", []), ("x", [OwnCallback()])],
)
def test_what_lightning_and_other_callbacks_log_is_waited_for(
    monitor: str, others: list[Callback], tmp_path: Path
) -> None:
    watch = ModelCheckpoint(tmp_path, monitor=monitor, every_n_train_steps=1000)  # looks at it later than this run ends
    assert fit("classification", tmp_path, watch, *others).global_step == 1


def test_stopping_when_an_accuracy_no_longer_falls(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="is val_accuracy, but its mode is min, .*: set mode to max"):
        fit("classification", tmp_path, EarlyStopping("val_accuracy"))
    fit("classification", tmp_path, EarlyStopping("val_accuracy", mode="max"))
