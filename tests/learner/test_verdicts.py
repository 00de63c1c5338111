"""Checks of a meta-step on a GPU are read a step late: the host waits for nothing, and no spoilt weights are kept."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_meta.algorithms import MAML
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner.checks import verdicts
from tests.helpers import glyph_network, glyphs, sgd, trainer

STEPS = 6


class Spoilt(MAML):
    """Whose loss is not finite at one meta-step."""

    spoilt = 0

    def outer_loss(self, params: Any, task: Any, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        loss, carry = super().outer_loss(params, task, carry, progress)
        return loss * torch.where((progress * STEPS).round() == self.spoilt, torch.nan, 1.0), carry


class Validated(Callback):
    """Whether the weights were finite at every validation."""

    def __init__(self) -> None:
        self.finite: list[bool] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.finite.append(all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_comes_late", lambda values: True)


def fit(tmp_path: Path, learner: MAML, *callbacks: Callback, **settings: Any) -> None:
    settings = {"limit_val_batches": 1.0, "callbacks": list(callbacks)} | settings
    run = trainer(tmp_path, max_steps=STEPS, val_check_interval=2, num_sanity_val_steps=0, **settings)
    run.fit(learner, glyphs(meta_batch_size=2, validation_tasks=2))


def learner(kind: type[MAML] = MAML) -> Any:
    """With an outer optimizer that counts nothing in tensors, which Adam keeps in main memory."""
    return kind(glyph_network(), InnerLoop(SGD(0.1), 1), task_chunk=2, compile=False, optimizer=sgd)


@pytest.mark.parametrize("spoilt", [1, 2, 3, STEPS - 1])  # 1 and 3: a validation follows
def test_no_spoilt_weights_are_scored_or_kept(spoilt: int, late: None, tmp_path: Path) -> None:
    spoiling, validated = learner(Spoilt), Validated()
    spoiling.spoilt = spoilt
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1 if spoilt == 2 else 2)
    with pytest.raises(
        MetaLearningError, match=rf"^meta-step {spoilt}: the outer loss of task\(s\) \[\d+, \d+\] is not"
    ):
        fit(tmp_path, spoiling, validated, saving, enable_checkpointing=True)
    assert validated.finite == [True] * (spoilt // 2)
    saved = list(tmp_path.glob("*.ckpt"))
    assert len(saved) == (2 if spoilt == 2 else spoilt // 2)
    for path in saved:
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(weight.isfinite().all()) for weight in weights.values())
    with pytest.raises(MetaLearningError, match=f"^meta-step {spoilt}"):  # what saves after an error finds it again
        spoiling.trainer.save_checkpoint(tmp_path / "late.ckpt")
    assert not (tmp_path / "late.ckpt").exists()
    spoiling.spoilt = -1
    spoiling.load_state_dict(learner().state_dict())
    fit(tmp_path, spoiling)


def test_ranks_do_not_share_spoilt_weights(late: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each checks its own, before workers are joined."""

    class Update(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            self.param_groups[0]["params"][0].data.fill_(torch.nan)
            monkeypatch.setattr(Trainer, "world_size", 2)  # from here on: one process stands for its rank
            return loss

    class Joining(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            pytest.fail("spoilt weights are joined")

    spoilt = MAML(glyph_network(), InnerLoop(SGD(0.1), 1), task_chunk=2, compile=False, optimizer=Update)
    with pytest.raises(MetaLearningError, match="^meta-step 0: the update left values that are not finite"):
        fit(tmp_path, spoilt, Joining())


def test_a_learner_is_copied_while_a_verdict_is_on_its_way(late: None, tmp_path: Path) -> None:
    trained = learner()

    class Copying(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            assert trained._verdicts._pending
            assert not copy.deepcopy(trained._verdicts)._pending
            assert not pickle.loads(pickle.dumps(trained._verdicts))._pending

    fit(tmp_path, trained, Copying())
    assert not trained._verdicts._pending


class Reading(TorchDispatchMode, Callback):
    """Which meta-steps have read a value of a tensor, for which the host waits where it lies on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.step: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and self.step is not None:
            self.steps.append(self.step)
        return func(*args, **(kwargs or {}))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, *_: Any) -> None:
        self.step = None


@pytest.mark.parametrize("comes_late", [True, False])
def test_a_meta_step_reads_no_value(comes_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those of the meta-step before it, which have arrived."""
    monkeypatch.setattr(verdicts, "_comes_late", lambda values: comes_late)
    monkeypatch.setattr(verdicts, "_on_its_way", lambda values: lambda: True)
    with Reading() as reading:
        fit(tmp_path, learner(), reading)
    assert sorted({*reading.steps}) == ([] if comes_late else list(range(STEPS)))
