"""A run that goes on from a checkpoint ends as one that was not interrupted, to the bit."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_meta.algorithms import ANIL, MAML, LearnedOptimizer, Reptile
from lightning_meta.backbones import MLP
from lightning_meta.callbacks import Board
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.inner import SGD, Adam, InnerLoop, LSTMOptimizer, MetaSGD
from lightning_meta.learner import MetaLearner

STEPS = 3  # after which the run is interrupted, and again to its end
METHODS: dict[str, tuple[Callable[..., MetaLearner], InnerLoop]] = {
    "MAML": (MAML, InnerLoop(SGD(0.01), 2, evaluation_steps=2)),
    "Reptile": (Reptile, InnerLoop(Adam(0.01), 3, batch_size=3, evaluation_steps=2)),
    "ANIL": (ANIL, InnerLoop(SGD(0.01), 2, evaluation_steps=2)),
    "MetaSGD": (MAML, InnerLoop(MetaSGD(0.01), 2, evaluation_steps=2)),
    "LearnedOptimizer": (LearnedOptimizer, InnerLoop(LSTMOptimizer(units=4), 2, evaluation_steps=2)),
}
PAIRS = [(method, "32-true") for method in METHODS] + [(method, "64-true") for method in ("MAML", "Reptile", "MetaSGD")]
PAIRS += [("MAML", "bf16-true"), ("Reptile", "bf16-true"), ("ANIL", "bf16-mixed"), ("LearnedOptimizer", "bf16-mixed")]


def fit(folder: Path, method: str, precision: str, steps: int, checkpoint: Path | None = None, **changes: Any) -> Path:
    """Train, and give the checkpoint of the end; the learner's and the data's own draws are another process's."""
    torch.manual_seed(0 if checkpoint is None else 17)
    kind, inner = METHODS[method]
    settings = {"optimization_steps": 4} if method == "LearnedOptimizer" else {}
    learner = kind(
        MLP(1, inputs=1, hidden=[8]), inner, loss=torch.nn.functional.mse_loss, compile=False, task_chunk=2, **settings
    )
    data = SinusoidEpisodes(meta_batch_size=2, validation_tasks=3, seed=5)
    common: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    common |= {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "max_epochs": -1}
    common |= {"logger": CSVLogger(folder, "", ""), "log_every_n_steps": 1, "callbacks": [Board()]}
    trainer = Trainer(max_steps=steps, precision=precision, **common | {"enable_checkpointing": False} | changes)
    trainer.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return folder / "end.ckpt"


def logged(*folders: Path) -> list[dict[str, str]]:
    """What was logged in one run or in its parts; Lightning counts every start as an epoch."""
    rows = [row for folder in folders for row in csv.DictReader((folder / "metrics.csv").open())]
    return [{key: value for key, value in row.items() if value and key != "epoch"} for row in rows]


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, moments of both optimizers, counts and used tasks."""
    states = [torch.load(path, weights_only=True) for path in (one, other)]
    for key in ("state_dict", "optimizer_states", "global_step", "SinusoidEpisodes"):
        parts = [dict(state[key]) if key == "state_dict" else state[key] for state in states]
        torch.testing.assert_close(*parts, rtol=0, atol=0, msg=lambda said, key=key: f"{key}: {said}")


@pytest.mark.parametrize(("method", "precision"), PAIRS)
def test_two_halves_are_the_whole(method: str, precision: str, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", method, precision, 2 * STEPS)
    half = fit(tmp_path / "first", method, precision, STEPS)
    end = fit(tmp_path / "second", method, precision, 2 * STEPS, half)
    assert_same_end(whole, end)
    rows = logged(whole.parent)
    assert rows == logged(half.parent, end.parent)
    assert len(rows) == 2 * STEPS + 3


def test_a_checkpoint_between_validations_while_gradients_accumulate(tmp_path: Path) -> None:
    """It lies after the fifth of six steps of two batches, and a validation follows every second batch."""
    settings = {"val_check_interval": 4, "accumulate_grad_batches": 2}
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    callbacks = {"enable_checkpointing": True, "callbacks": [Board(), saving]}
    whole = fit(tmp_path / "whole", "MAML", "32-true", 6, **settings | callbacks)
    for step in (1, 3, 5):
        end = fit(tmp_path / str(step), "MAML", "32-true", 6, tmp_path / f"step={step}.ckpt", **settings)
        assert_same_end(whole, end)
        assert logged(end.parent) == [row for row in logged(whole.parent) if int(row["step"]) >= step]
