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
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.inner import SGD, Adam, InnerLoop, LSTMOptimizer, MetaSGD
from lightning_meta.learner import MetaLearner

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),  # the data module is
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]
METHODS: dict[str, tuple[Callable[..., MetaLearner], InnerLoop]] = {
    "MAML": (MAML, InnerLoop(SGD(0.01), 2, evaluation_steps=2)),
    "Reptile": (Reptile, InnerLoop(Adam(0.01), 3, batch_size=3, evaluation_steps=2)),
    "ANIL": (ANIL, InnerLoop(SGD(0.01), 2, evaluation_steps=2)),
    "MetaSGD": (MAML, InnerLoop(MetaSGD(0.01), 2, evaluation_steps=2)),
    "LearnedOptimizer": (LearnedOptimizer, InnerLoop(LSTMOptimizer(units=4), 2, evaluation_steps=2)),
}
PAIRS = [(method, "32-true") for method in METHODS] + [(method, "64-true") for method in ("MAML", "Reptile", "MetaSGD")]
PAIRS += [("MAML", "bf16-true"), ("Reptile", "bf16-true"), ("ANIL", "bf16-mixed"), ("LearnedOptimizer", "bf16-mixed")]


def fit(
    folder: Path, method: str, precision: str, checkpoint: Path | None = None, saves: bool = False, **changes: Any
) -> Path:
    """Train for six meta-steps, and give the checkpoint of the end; global draws are those of another process."""
    torch.manual_seed(0 if checkpoint is None else 17)
    kind, inner = METHODS[method]
    settings = {"optimization_steps": 4} if method == "LearnedOptimizer" else {}
    learner = kind(
        MLP(1, inputs=1, hidden=[8]), inner, loss=torch.nn.functional.mse_loss, compile=False, task_chunk=2, **settings
    )
    data = SinusoidEpisodes(meta_batch_size=2, validation_tasks=3, seed=5)
    common: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    common |= {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "max_epochs": -1}
    common |= {"logger": CSVLogger(folder, "", ""), "log_every_n_steps": 1, "enable_checkpointing": saves}
    common |= {"callbacks": [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if saves else []}
    trainer = Trainer(precision=precision, **common | {"max_steps": 6} | changes)  # type: ignore[arg-type]
    trainer.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return folder / "end.ckpt"


def logged(end: Path, since: int) -> list[dict[str, str]]:
    """What a run logged from a meta-step on; Lightning counts every start as an epoch."""
    rows = csv.DictReader((end.parent / "metrics.csv").read_text().splitlines())
    return [{k: v for k, v in row.items() if v and k != "epoch"} for row in rows if int(row["step"]) >= since]


def check_same_end(one: Path, other: Path, since: int) -> None:
    """Weights, moments of both optimizers, counts, used tasks, and all that was logged."""
    states = [torch.load(path, weights_only=True) for path in (one, other)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "SinusoidEpisodes"):
        parts = [dict(state[key]) if key == "state_dict" else state[key] for state in states]
        torch.testing.assert_close(*parts, rtol=0, atol=0, msg=lambda said, key=key: f"{key}: {said}")
    rows = [logged(path, since) for path in (one, other)]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 6 - since  # validations beside the steps


@pytest.mark.parametrize(("method", "precision"), PAIRS)
def test_a_run_goes_on_as_if_nothing_had_been(method: str, precision: str, tmp_path: Path) -> None:
    """From the third of six meta-steps, between two validations."""
    whole = fit(tmp_path / "whole", method, precision, saves=True)
    check_same_end(whole, fit(tmp_path / "rest", method, precision, tmp_path / "whole" / "step=3.ckpt"), 3)


def test_gradients_accumulate_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Over two batches, with a validation after every second step."""
    settings: dict[str, Any] = {"val_check_interval": 4, "accumulate_grad_batches": 2}
    whole = fit(tmp_path / "whole", "MAML", "32-true", saves=True, **settings)
    for step in (1, 2, 5):
        rest = fit(tmp_path / str(step), "MAML", "32-true", tmp_path / "whole" / f"step={step}.ckpt", **settings)
        check_same_end(whole, rest, step)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("steps", [3, 4])
def test_a_fit_that_had_ended_goes_on(steps: int, batches: int, tmp_path: Path) -> None:
    """Between two validations, and at one; what is logged counts on without a gap, too."""
    settings: dict[str, Any] = {"val_check_interval": 2 * batches, "accumulate_grad_batches": batches}
    whole = fit(tmp_path / "whole", "MAML", "32-true", **settings)
    half = fit(tmp_path / "half", "MAML", "32-true", max_steps=steps, **settings)
    check_same_end(whole, fit(tmp_path / "rest", "MAML", "32-true", half, **settings), steps)
