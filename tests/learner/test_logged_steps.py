"""The step under which loggers put what a run that goes on measures."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_meta.algorithms import MAML
from tests.helpers import glyph_network, glyphs, trainer


class Save(Callback):
    """Saves after a meta-batch, or at the end."""

    def __init__(self, path: Path, batches: int | None) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batches:
            trainer.save_checkpoint(self.path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batches is None:
            trainer.save_checkpoint(self.path)


class Watch(Callback):
    """Notes the loggers' step beside the trainer's in every meta-batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append((trainer.fit_loop.epoch_loop._batches_that_stepped, trainer.global_step))


@pytest.mark.filterwarnings("ignore:You.re resuming")  # the stream of tasks goes on by itself
@pytest.mark.parametrize(("accumulated", "batches"), [(1, 1), (1, None), (2, 2), (2, 3), (2, None)])
def test_a_run_that_goes_on_is_logged_under_its_meta_steps(
    accumulated: int, batches: int | None, tmp_path: Path
) -> None:
    path, watch = tmp_path / "saved.ckpt", Watch()
    for steps, callback in ((2, Save(path, batches)), (4, watch)):
        run = trainer(tmp_path, max_steps=steps, accumulate_grad_batches=accumulated, callbacks=[callback])
        run.fit(MAML(glyph_network(), compile=False), glyphs(), ckpt_path=path if callback is watch else None)
    assert watch.seen[-1] == (3, 3)
    assert [logged for logged, _ in watch.seen] == [done for _, done in watch.seen]
