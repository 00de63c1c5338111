"""Two workers on gloo train in several ways, one after the other: ``python tests/callbacks/two_workers.py FOLDER``.

Each worker writes what it ended with to ``NAME_RANK.pt``. `test_join_weights.py` runs this and judges it.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import _get_default_group
from torch.nn import functional

from lightning_meta.algorithms import MAML, Reptile
from lightning_meta.backbones import MLP
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.distributed import ArithmeticMean, JoinWeights, LocalWorkers, LossMovingAverage
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner

TASKS = 6
EVERY, STEPS, VALIDATION = 2, 6, 3  # joined after meta-steps 2, 3 (before the validation), 4 and 6


def maml(optimizer: Any) -> MAML:
    torch.manual_seed(0)
    inner = InnerLoop(SGD(0.05), steps=2, evaluation_steps=1)
    return MAML(MLP(1, hidden=[8]), inner, loss=functional.mse_loss, optimizer=optimizer, task_chunk=1, compile=False)


def adam_maml() -> MAML:
    return maml(lambda parameters: torch.optim.Adam(parameters, lr=0.02))


def momentum_maml() -> MAML:
    return maml(lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9))


def reptile() -> Reptile:
    torch.manual_seed(0)
    inner = InnerLoop(Adam(0.02, beta1=0.5), steps=2, evaluation_steps=1)
    return Reptile(MLP(1, hidden=[8]), inner, loss=functional.mse_loss, lr_scheduler=None, task_chunk=1, compile=False)


class Record(Callback):
    """Weights of this worker after every meta-step, ahead of a joining, and the number of collectives so far."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.collectives: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collectives.append(_get_default_group()._get_sequence_number_for_group())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.collectives.append(_get_default_group()._get_sequence_number_for_group())
        self.weights.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})


class ForgetOnce(Callback):
    """Worker 1 has no optimizer state after its first step, as one that left it out in mixed precision."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 1 and trainer.global_rank == 1:
            trainer.optimizers[0].state.clear()


class SaveOnce(Callback):
    """Saves between two joinings."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            trainer.save_checkpoint(self.path)


def fit(folder: Path, name: str, learner: MetaLearner, strategy: Any, callbacks: list[Callback], **more: Any) -> None:
    record = Record()
    settings = {"max_steps": STEPS, "limit_val_batches": 0} | more
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=strategy, precision="64-true", callbacks=[record, *callbacks],
        max_epochs=-1, check_val_every_n_epoch=None, num_sanity_val_steps=0, log_every_n_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(learner, SinusoidEpisodes(meta_batch_size=TASKS, validation_tasks=4))
    ended = {
        "state": learner.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "callbacks": {callback.state_key: callback.state_dict() for callback in callbacks},
        "weights": record.weights,
        "collectives": record.collectives,
    }
    torch.save(ended, folder / f"{name}_{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    for name, make in {"momentum": momentum_maml, "reptile": reptile}.items():
        fit(folder, f"{name}_ddp", make(), "ddp", [])
        fit(folder, f"{name}_joined", make(), LocalWorkers(), [JoinWeights(ArithmeticMean())])
    rare = [JoinWeights(LossMovingAverage(), EVERY)]
    fit(folder, "rare", adam_maml(), LocalWorkers(), rare, limit_val_batches=1, val_check_interval=VALIDATION)
    fit(folder, "carry", reptile(), LocalWorkers(), [JoinWeights(ArithmeticMean(), 100)])
    fit(folder, "forgot", adam_maml(), LocalWorkers(), [ForgetOnce(), JoinWeights(ArithmeticMean())], max_steps=2)
    saves = [JoinWeights(ArithmeticMean(), 100), SaveOnce(folder / "saved.ckpt")]
    fit(folder, "saved", adam_maml(), LocalWorkers(), saves, max_steps=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
