"""Schedules, optimizers and weights that look wrong and are right: none is refused."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.cli import ReduceLROnPlateau
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.utils.data import DataLoader

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner.schedule import configure_schedule, source_of_rates
from tests.helpers import glyphs, image_episode, sgd, trainer


def learner(schedule: Any = None, outer: Any = sgd) -> MAML:
    torch.manual_seed(0)
    network = MLP(3, inputs=784, hidden=[4])
    return MAML(network, InnerLoop(), lr_scheduler=schedule, optimizer=outer, compile=False, task_chunk=1)


class Own(lr_scheduler.LRScheduler):
    """Of a person's own, whose settings are named as some of torch's."""

    patience: Any = "auto"

    def __init__(self, optimizer: Optimizer, patience: Any) -> None:
        self.patience = patience
        super().__init__(optimizer)

    def get_lr(self) -> Any:
        return self.base_lrs


def own_function(own: Optimizer, step_size: float, factor: float = 2.0) -> Any:
    return lr_scheduler.StepLR(own, 2, factor * step_size)


def given_a_class(kind: Any, own: Optimizer) -> Any:
    return kind(own, 5, eta_min=0.01)


@pytest.mark.parametrize(
    "schedule",
    [
        partial(own_function, step_size=0.5),
        partial(own_function, step_size=-0.25, factor=-2.0),
        partial(given_a_class, lr_scheduler.CosineAnnealingLR),
        partial(Own, patience="auto"),
        partial(Own, patience=[1, -2]),
        partial(lr_scheduler.MultiStepLR, milestones=np.array([2, 4])),
        partial(lr_scheduler.MultiStepLR, milestones=torch.tensor([2, 4])),
        partial(lr_scheduler.StepLR, step_size=np.int64(2), gamma=np.float64(0.5)),
        partial(lr_scheduler.CosineAnnealingLR, T_max=2.5),
        partial(lr_scheduler.LinearLR, total_iters=2.5),
        partial(lr_scheduler.CyclicLR, base_lr=0.001, max_lr=0.1, step_size_up=100 / 3),
        partial(ReduceLROnPlateau, monitor="val_loss", patience=0.5),
    ],
)
def test_settings_that_torch_or_a_person_s_own_schedule_takes(schedule: Any) -> None:
    own = SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    found: Any = configure_schedule(schedule, own, Trainer(max_steps=8, logger=False))
    assert source_of_rates(schedule).startswith("model.lr_scheduler ")
    assert found["optimizer"].param_groups[0]["lr"] > 0


@pytest.mark.filterwarnings("ignore:When using `Trainer")  # as noise.py leaves it out
@pytest.mark.parametrize(
    ("schedule", "changes", "refused_at"),
    [
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4), {"max_epochs": 2}, None),
        (partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3), {"max_epochs": 2}, 3),
        (
            partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=2),
            {"max_epochs": 2, "accumulate_grad_batches": 2},
            None,
        ),
        (
            partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3),
            {"max_epochs": 2, "callbacks": [GradientAccumulationScheduler({1: 2})]},
            None,
        ),
        (partial(lr_scheduler.ExponentialLR, gamma=1e20), {"max_epochs": 1}, None),
        (
            partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4),
            {"max_epochs": 2, "limit_train_batches": 0.02},
            None,
        ),
    ],
)
def test_a_run_is_rehearsed_as_long_as_its_epochs(
    schedule: Any, changes: dict[str, Any], refused_at: int | None, tmp_path: Path
) -> None:
    run = trainer(tmp_path, **{"max_steps": 100, "limit_train_batches": 2} | changes)
    if refused_at is None:
        run.fit(learner(schedule), glyphs())
        return
    with pytest.raises(MetaLearningError, match=f"fails after meta-step {refused_at}: .* for the run.s 4 meta-steps"):
        run.fit(learner(schedule), glyphs())


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # it only trains
def test_a_loader_of_a_person_s_own_ends_the_run(tmp_path: Path) -> None:
    """Its length is not known before the run, which is what ends it."""
    batches: Any = [image_episode(tasks=2), image_episode(tasks=2)]
    schedule = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4)
    run = trainer(tmp_path, max_steps=100, max_epochs=2)
    own = MAML(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), InnerLoop(), lr_scheduler=schedule, compile=False)
    run.fit(own, DataLoader(batches, batch_size=None))
    assert run.global_step == 4


class Relative(SGD):
    """Finds its rate itself."""

    def __init__(self, parameters: Any, without: bool) -> None:
        super().__init__(parameters, lr=0.01)
        for group in self.param_groups:
            group["rate"] = group.pop("lr") if without else group["lr"]
            group |= {} if without else {"lr": None}

    def step(self, closure: Any = None) -> Any:
        rates = [group.get("lr") for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = group["rate"]
        loss = super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss


@pytest.mark.parametrize("without", [True, False])
def test_an_optimizer_that_finds_its_own_rate(without: bool, tmp_path: Path) -> None:
    own = learner(outer=partial(Relative, without=without))
    before = own.backbone[-1].weight.clone()
    trainer(tmp_path).fit(own, glyphs())
    assert not torch.equal(own.backbone[-1].weight, before)


def test_frozen_infinities_and_large_values_are_no_fault_of_the_update(tmp_path: Path) -> None:
    own = learner()
    own.backbone.mask = nn.Parameter(torch.tensor([0.0, -math.inf]), requires_grad=False)
    own.backbone.large = nn.Parameter(torch.tensor([3e38, 3e38]))
    trainer(tmp_path).fit(own, glyphs())
    assert own.backbone.mask[1] == -math.inf
