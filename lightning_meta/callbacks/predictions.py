"""What `predict` finds, as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter


class PredictionFile(BasePredictionWriter):
    """Writes ``predictions_RANK.pt`` into the run's folder: a list of batches, each a dictionary of tensors.

    ``task_ids`` (tasks,) says which test tasks they are, ``outputs`` (tasks, queries, outputs) what came out after
    the last inner step, and ``targets`` what was right. Read it with ``torch.load(path, weights_only=True)``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write this rank's predictions."""
        log_dir = trainer.log_dir
        if log_dir is not None:
            path = Path(log_dir) / f"predictions_{trainer.global_rank}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(list(predictions), path)
            print(f"predictions: {path}")
