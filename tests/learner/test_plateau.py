"""A plateau schedule makes one step for every validation of a fit, as a loop of one's own would."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ReduceLROnPlateau
from torch.optim import SGD

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from tests.helpers import glyphs, trainer

SETTINGS: dict[str, Any] = {"factor": 0.5, "patience": 1, "threshold": 0.01}


class Validations(Callback):
    """The figures of every validation after the first meta-step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step:
            self.losses.append(float(trainer.callback_metrics["val_loss"]))


def fit(tmp_path: Path, path: Path | None = None, monitor: str = "val_loss", **changes: Any) -> tuple[Any, list[float]]:
    """A run that learns little, its trainer and the losses of its validations."""
    torch.manual_seed(0)
    schedule = partial(ReduceLROnPlateau, monitor=monitor, **SETTINGS)
    outer = partial(SGD, lr=1e-3)
    own = MAML(
        MLP(3, inputs=784, hidden=[4]), InnerLoop(), lr_scheduler=schedule, optimizer=outer, compile=False, task_chunk=1
    )
    watch, saving = Validations(), ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)
    run = trainer(tmp_path, callbacks=[saving, watch], enable_checkpointing=True, **{"limit_val_batches": 1} | changes)
    run.fit(own, glyphs(validation_tasks=2), ckpt_path=path, weights_only=True)
    return run, watch.losses


def state(run: Any) -> tuple[float, dict[str, Any]]:
    return run.optimizers[0].param_groups[0]["lr"], run.lr_scheduler_configs[0].scheduler.state_dict()


PER_BATCH: dict[str, Any] = {"check_val_every_n_epoch": None}


@pytest.mark.parametrize(
    ("changes", "validations"),
    [
        (PER_BATCH | {"max_steps": 12, "max_epochs": 6, "limit_train_batches": 2, "val_check_interval": 4}, 3),
        (PER_BATCH | {"max_steps": 12, "max_epochs": 2, "limit_train_batches": 6, "val_check_interval": 4}, 3),
        (PER_BATCH | {"max_steps": 6, "accumulate_grad_batches": 2, "val_check_interval": 3}, 4),
        (PER_BATCH | {"max_steps": 2, "accumulate_grad_batches": 2, "val_check_interval": 1}, 3),
        ({"max_steps": 6, "max_epochs": 3, "limit_train_batches": 2, "val_check_interval": 1.0}, 3),
        ({"max_steps": 8, "max_epochs": 2, "limit_train_batches": 4, "val_check_interval": 0.5}, 4),
        (PER_BATCH | {"max_steps": 3, "val_check_interval": 1, "num_sanity_val_steps": 1}, 3),
    ],
)
def test_one_step_for_every_validation(changes: dict[str, Any], validations: int, tmp_path: Path) -> None:
    run, losses = fit(tmp_path, **changes)
    assert len(losses) == validations
    own = SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    expected = ReduceLROnPlateau(own, "val_loss", **SETTINGS)
    for loss in losses:
        expected.step(loss)
    rate, found = state(run)
    assert rate == own.param_groups[0]["lr"]
    assert {name: found[name] for name in ("best", "num_bad_epochs", "last_epoch")} == {
        name: getattr(expected, name) for name in ("best", "num_bad_epochs", "last_epoch")
    }


@pytest.mark.filterwarnings(
    "ignore:The dirpath has changed", "ignore:.*your dataloader is not resumable"
)  # as noise.py
def test_a_run_that_goes_on_makes_each_step_once(tmp_path: Path) -> None:
    settings = PER_BATCH | {"max_steps": 8, "val_check_interval": 2}
    whole, losses = fit(tmp_path, **settings)
    again, others = fit(tmp_path / "again", tmp_path / "step=4.ckpt", **settings)
    assert others == losses[2:]
    assert state(again) == state(whole)


def test_a_figure_that_is_not_there_by_the_first_validation(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="monitor is train/loss, which nothing has logged .* val_loss"):
        fit(tmp_path, monitor="train/loss", max_steps=1, val_check_interval=1, **PER_BATCH)
