"""How fast a run is."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_meta.episode import Episode


class TasksPerSecond(Callback):
    """Logs ``train/tasks_per_second`` over all ranks, between two logging steps and without the time of validation."""

    def __init__(self) -> None:
        self._tasks = 0
        self._since = 0.0
        self._paused = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._tasks, self._since = 0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self._since += time.perf_counter() - self._paused

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Episode, batch_idx: int
    ) -> None:
        """Count, and log where Lightning does."""
        self._tasks += batch.tasks * trainer.world_size
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            now = time.perf_counter()
            pl_module.log("train/tasks_per_second", self._tasks / (now - self._since), prog_bar=True)
            self._tasks, self._since = 0, now
