"""Every schedule of torch's with its own settings; the length of the run is filled in where none is given."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.loggers import CSVLogger
from torch.optim import SGD, Optimizer, lr_scheduler

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.cli import main
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner.schedule import configure_schedule
from tests.cli.helpers import SHORT_RUN, SMALL_DATA
from tests.helpers import glyphs, trainer

STEPS = 8
SCHEDULES: dict[str, dict[str, Any]] = {
    "ExponentialLR": {"gamma": 0.9},
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 4]},
    "ConstantLR": {"factor": 0.5},
    "LinearLR": {"start_factor": 0.1},
    "LinearLR of 3": {"start_factor": 0.1, "total_iters": 3},
    "CosineAnnealingLR": {},
    "CosineAnnealingLR of 5": {"T_max": 5, "eta_min": 1e-4},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "PolynomialLR": {"power": 2.0},
    "PolynomialLR of 4": {"total_iters": 4},
    "OneCycleLR": {"max_lr": 0.01},
    "OneCycleLR of epochs": {"max_lr": 0.01, "epochs": 2, "steps_per_epoch": 6},
    "CyclicLR": {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 2},
}
OF_THE_RUN = {"CosineAnnealingLR": "T_max", "PolynomialLR": "total_iters", "OneCycleLR": "total_steps"}


def optimizer() -> Optimizer:
    return SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)


def rates(scheduler: Any) -> list[float]:
    found = []
    for _ in range(STEPS):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_that_torch_documents(name: str) -> None:
    kind, settings = getattr(lr_scheduler, name.split()[0]), SCHEDULES[name]
    length = {OF_THE_RUN[name]: STEPS} if name in OF_THE_RUN else {}
    found: Any = configure_schedule(partial(kind, **settings), optimizer(), Trainer(max_steps=STEPS, logger=False))
    assert found["lr_scheduler"]["interval"] == "step"
    assert rates(found["lr_scheduler"]["scheduler"]) == rates(kind(optimizer(), **settings, **length))


@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_class_alone_has_the_length_of_the_run(name: str) -> None:
    kind = getattr(lr_scheduler, name)
    kind = partial(kind, max_lr=0.01) if name == "OneCycleLR" else kind
    found: Any = configure_schedule(kind, optimizer(), Trainer(max_steps=STEPS, logger=False))
    assert rates(found["lr_scheduler"]["scheduler"]) == rates(kind(optimizer(), **{OF_THE_RUN[name]: STEPS}))


def warm_up(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Linear for three meta-steps, then a cosine."""
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(optimizer, 5)]
    return lr_scheduler.SequentialLR(optimizer, parts, [3])


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's own call in SequentialLR
def test_a_function_of_the_optimizer_serves_as_well() -> None:
    found: Any = configure_schedule(warm_up, optimizer(), Trainer(max_steps=STEPS, logger=False))
    assert rates(found["lr_scheduler"]["scheduler"]) == rates(warm_up(optimizer()))


def test_without_a_schedule_the_optimizer_stands_alone() -> None:
    own = optimizer()
    assert configure_schedule(None, own, Trainer(max_steps=STEPS, logger=False)) is own


@pytest.mark.parametrize("schedule", [lr_scheduler.StepLR, partial(lr_scheduler.StepLR, gama=0.5), lambda a, b: None])
def test_what_cannot_be_made_is_refused(schedule: Any, tmp_path: Path) -> None:
    learner = MAML(MLP(3, inputs=784), InnerLoop(), lr_scheduler=schedule)
    with pytest.raises(MetaLearningError, match="model.lr_scheduler .* cannot be made with these settings: .*"):
        trainer(tmp_path).fit(learner, glyphs())


def test_a_plateau_is_seen_at_validations(tmp_path: Path) -> None:
    """An outer rate of nearly zero changes nothing, so that every validation but the first lowers it."""
    schedule = partial(ReduceLROnPlateau, monitor="val_loss", factor=0.5, patience=0)
    learner = MAML(MLP(3, inputs=784), InnerLoop(), lr_scheduler=schedule, optimizer=partial(SGD, lr=1e-12))
    logger = CSVLogger(tmp_path, version=0)
    run = trainer(
        tmp_path, max_steps=6, val_check_interval=2, check_val_every_n_epoch=None, limit_val_batches=1, logger=logger,
        callbacks=[LearningRateMonitor()], log_every_n_steps=1, max_epochs=-1,
    )  # fmt: skip
    run.fit(learner, glyphs(validation_tasks=2))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-12 / 4)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["ExponentialLR", "gamma=0.5"], {"gamma": 0.5}),
        (["StepLR", "step_size=2", "gamma=0.5"], {"step_size": 2, "gamma": 0.5}),
        (["CosineAnnealingLR"], {"T_max": 4}),
        (["CosineAnnealingLR", "T_max=3"], {"T_max": 3}),
        (["PolynomialLR", "power=2"], {"total_iters": 4, "power": 2.0}),
        (["OneCycleLR", "max_lr=0.01"], {"max_lr": 0.01, "total_steps": 4}),
    ],
)
def test_the_command_line_passes_a_schedule_its_own_settings(
    arguments: list[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    name, *given = arguments
    schedule = [f"--model.lr_scheduler=torch.optim.lr_scheduler.{name}"]
    schedule += [f"--model.lr_scheduler.{setting}" for setting in given]
    model = ["--model=MAML", "--model.backbone=lightning_meta.backbones.MLP", "--model.backbone.inputs=784"]
    run = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=4", "--trainer.log_every_n_steps=1"]
    assert main(["fit", *model, *SMALL_DATA, *SHORT_RUN, *run, *schedule, "--data.test_tasks=0"]) == 0
    last = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    own = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    expected = getattr(lr_scheduler, name)(own, **settings)
    for _ in range(4):
        own.step()
        expected.step()
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(own.param_groups[0]["lr"])
