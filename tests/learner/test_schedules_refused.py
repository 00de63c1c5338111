"""Schedules that give invalid rates: refused before the run where they can be foreseen, otherwise at the meta-step."""

import copy
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ReduceLROnPlateau
from torch.optim import SGD, Adam, Optimizer, lr_scheduler

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner.schedule import configure_schedule
from tests.cli.helpers import refused, small
from tests.helpers import glyphs, trainer

STEPS = 8
FORESEEN: list[tuple[str, dict[str, Any], str]] = [
    ("ExponentialLR", {"gamma": math.nan}, r"ExponentialLR\(gamma=nan\) gives meta-step 1 a rate of nan, expected"),
    ("ExponentialLR", {"gamma": math.inf}, "gives meta-step 1 a rate of inf"),
    ("ExponentialLR", {"gamma": 1e200}, r"gives meta-step 1 a rate of 1e\+199"),
    ("ExponentialLR", {"gamma": -0.5}, r"\(gamma=-0.5\) gives meta-step 1 a rate of -0.05"),
    ("StepLR", {"step_size": 3, "gamma": -1.0}, r"\(step_size=3, gamma=-1.0\) gives meta-step 3 a rate of -0.1"),
    ("MultiStepLR", {"milestones": [7], "gamma": -1.0}, "gives meta-step 7 a rate of -0.1"),
    ("CosineAnnealingLR", {"eta_min": -0.1}, r"\(eta_min=-0.1\) gives meta-step 5 a rate of -0.0"),
    ("CosineAnnealingLR", {"eta_min": math.nan}, "gives meta-step 1 a rate of nan"),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "eta_min": -1.0}, "gives meta-step 1 a rate of -0.45"),
    ("OneCycleLR", {"max_lr": -0.01}, "gives meta-step 0 a rate of -0.0004"),
    ("OneCycleLR", {"max_lr": 0.01, "div_factor": -1.0}, "gives meta-step 0 a rate of -0.01"),
    ("OneCycleLR", {"max_lr": 0.01, "max_momentum": 2.0}, "gives meta-step 0 a momentum of 2, expected .* below 1"),
    ("CyclicLR", {"base_lr": -0.1, "max_lr": 0.1}, "gives meta-step 0 a rate of -0.1"),
    ("LambdaLR", {"lr_lambda": lambda step: math.nan}, "LambdaLR gives meta-step 0 a rate of nan"),
    ("LambdaLR", {"lr_lambda": [lambda step: math.nan]}, "LambdaLR gives meta-step 0 a rate of nan"),
    ("LambdaLR", {"lr_lambda": lambda step: (-1) ** 0.5}, "gives meta-step 0 a rate of .*j"),
    ("StepLR", {"step_size": 0}, "step_size of StepLR is 0, expected a whole number that is at least 1"),
    ("StepLR", {"step_size": -1}, "step_size of StepLR is -1"),
    ("StepLR", {"step_size": 2.5}, "step_size of StepLR is 2.5"),
    ("StepLR", {"step_size": math.nan}, "step_size of StepLR is nan"),
    ("CosineAnnealingLR", {"T_max": 0}, "T_max of CosineAnnealingLR is 0"),
    ("CosineAnnealingWarmRestarts", {"T_0": 0}, "CosineAnnealingWarmRestarts cannot be made .* T_0, but got 0"),
    ("StepLR", {"step_size": "2"}, "StepLR cannot be made"),
    ("LinearLR", {"total_iters": 0}, "total_iters of LinearLR is 0"),
    ("ConstantLR", {"total_iters": 2.5}, "total_iters of ConstantLR is 2.5, expected a whole number"),
    ("ConstantLR", {"total_iters": 0}, "total_iters of ConstantLR is 0"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 0}, "CyclicLR cannot be made .* by zero"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": -2}, "step_size_up of CyclicLR is -2"),
    ("OneCycleLR", {"max_lr": 0.01, "div_factor": 0}, "OneCycleLR cannot be made .* by zero"),
    (
        "OneCycleLR",
        {"max_lr": 0.01, "total_steps": 5},
        "fails after meta-step 5: .* total_steps.*, or lower trainer.max_steps",
    ),
    ("PolynomialLR", {"power": -1.0}, "PolynomialLR fails after meta-step 7: .* raised to a negative power"),
    ("StepLR", {"step_size": 2, "last_epoch": 3}, "StepLR cannot be made .* 'initial_lr' is not specified"),
    ("ReduceLROnPlateau", {}, "is torch's, .* take pytorch_lightning.cli.ReduceLROnPlateau with its monitor"),
]


def optimizer() -> Optimizer:
    return SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)


def configure(schedule: Any, own: Optimizer, steps: int = STEPS) -> Any:
    return configure_schedule(schedule, own, Trainer(max_steps=steps, logger=False))


@pytest.mark.parametrize(("name", "settings", "said"), FORESEEN)
def test_a_schedule_is_refused_before_the_run(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match="^model.lr_scheduler") as refusal:
        configure(partial(getattr(lr_scheduler, name), **settings), optimizer())
    assert re.search(said, str(refusal.value)), refusal.value
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "settings", "argument"),
    [
        ("CosineAnnealingLR", {}, "T_max"),
        ("OneCycleLR", {"max_lr": 0.01}, "total_steps"),
        ("PolynomialLR", {}, "total_iters"),
    ],
)
def test_a_run_without_a_length(name: str, settings: dict[str, Any], argument: str) -> None:
    schedule = partial(getattr(lr_scheduler, name), **settings)
    with pytest.raises(MetaLearningError, match=f"{name} takes {argument} from trainer.max_steps, which is -1: "):
        configure(schedule, optimizer(), -1)
    configure(partial(schedule, **{argument: 5}), optimizer(), -1)


@pytest.mark.parametrize("factor", [math.nan, -2.0])
def test_the_factor_of_a_plateau(factor: float) -> None:
    with pytest.raises(
        MetaLearningError, match=f"model.lr_scheduler.factor of .* is {factor}, expected a factor .* below 1"
    ):
        configure(partial(ReduceLROnPlateau, monitor="val_loss", factor=factor), optimizer())


def parts(own: Optimizer) -> lr_scheduler.LRScheduler:
    """The second of two is wrong."""
    both = [lr_scheduler.LinearLR(own, 0.1, total_iters=3), lr_scheduler.ExponentialLR(own, -1.0)]
    return lr_scheduler.SequentialLR(own, both, [3])


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch's own call in SequentialLR
@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (parts, "model.lr_scheduler parts gives meta-step 4 a rate of -0.1"),
        (lambda own: own, "gives a SGD, expected a schedule"),
        (lambda own: None, "gives a NoneType, expected a schedule"),
        (lambda own: {"scheduler": None}, "gives a dict, expected a schedule"),
        (lambda own: lr_scheduler.StepLR(optimizer(), 2), "gives a StepLR of another optimizer, expected a schedule"),
    ],
)
def test_what_a_function_gives(schedule: Callable[[Optimizer], Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        configure(schedule, optimizer())


@pytest.mark.parametrize(
    "schedule",
    [
        partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=7),
        partial(lr_scheduler.CosineAnnealingLR, T_max=7),
        lr_scheduler.PolynomialLR,
        partial(lr_scheduler.OneCycleLR, max_lr=1.0),
        partial(lr_scheduler.CyclicLR, base_lr=0.0, max_lr=1.0),
        partial(lr_scheduler.ExponentialLR, gamma=0.0),
    ],
)
@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_a_rehearsal_leaves_the_optimizer_as_it_was(schedule: Any, rate: Any) -> None:
    """It goes by copies, also where a rate is a tensor that torch changes in place."""
    own = SGD([torch.zeros(1, requires_grad=True)], lr=copy.deepcopy(rate), momentum=0.9, foreach=False)
    found = configure(schedule, own, 700)["lr_scheduler"]["scheduler"]
    other = SGD([torch.zeros(1, requires_grad=True)], lr=copy.deepcopy(rate), momentum=0.9, foreach=False)
    length = {"PolynomialLR": {"total_iters": 700}, "OneCycleLR": {"total_steps": 700}}
    fresh = schedule(other, **length.get(getattr(schedule, "func", schedule).__name__, {}))
    for _ in range(5):
        assert own.param_groups[0]["lr"] == other.param_groups[0]["lr"]
        assert own.param_groups[0]["momentum"] == other.param_groups[0]["momentum"]
        for scheduler in (found, fresh):
            scheduler.optimizer.step()
            scheduler.step()


def learner(schedule: Any = None, outer: Any = partial(SGD, lr=0.01)) -> MAML:
    torch.manual_seed(0)
    network = MLP(3, inputs=784, hidden=[4])
    return MAML(network, InnerLoop(), lr_scheduler=schedule, optimizer=outer, compile=False, task_chunk=1)


def fit(tmp_path: Path, schedule: Any = None, outer: Any = partial(SGD, lr=0.01), **changes: Any) -> MAML:
    """A run of three meta-steps; its last checkpoint is of the last of them that was sound."""
    saving = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1, save_top_k=0)
    run = trainer(tmp_path, max_steps=3, enable_checkpointing=True, callbacks=[saving], **changes)
    fitted = learner(schedule, outer)
    run.fit(fitted, glyphs())
    return fitted


@pytest.mark.parametrize("factor", [math.nan, math.inf, -1.0, 1e60])
def test_a_person_s_own_function_is_checked_at_the_meta_step(factor: float, tmp_path: Path) -> None:
    calls: list[int] = []

    def rate(step: int) -> float:
        calls.append(step)
        return factor if step == 2 else 1.0

    with pytest.raises(MetaLearningError, match="^model.lr_scheduler LambdaLR gives meta-step 2 a rate of "):
        fit(tmp_path, partial(lr_scheduler.LambdaLR, lr_lambda=rate))
    assert sorted({*calls}) == [0, 1, 2]  # and none of a rehearsal, which it might remember
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_a_rate_after_the_last_meta_step_is_never_used(tmp_path: Path) -> None:
    fit(tmp_path, partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0 if step < 3 else math.nan))


class Spoiling(SGD):
    """An optimizer whose third step, the last of the run, leaves a value that is not finite."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.steps += 1
        if self.steps == 3:
            self.param_groups[0]["params"][1].data[0] = math.nan
        return loss


def test_the_last_update_is_checked_as_the_others_are(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="meta-step 2: the update left values that are not finite in backbone"):
        fit(tmp_path, outer=partial(Spoiling, lr=0.01))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_an_infinite_rate_of_the_optimizer_itself(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="^model.optimizer gives meta-step 0 a rate of inf"):
        fit(tmp_path, outer=partial(Adam, lr=math.inf))


def test_an_epsilon_of_zero_is_named_where_it_divides(tmp_path: Path) -> None:
    """The inputs' corners are empty, so that their weights have a gradient of exactly 0."""
    with pytest.raises(MetaLearningError, match="meta-step 0: the update left .* Set model.optimizer.eps above 0"):
        fit(tmp_path, outer=partial(Adam, lr=0.01, eps=0.0))


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax"])
def test_an_epsilon_that_half_precision_rounds_to_zero(kind: str, tmp_path: Path) -> None:
    outer = partial(getattr(torch.optim, kind), lr=0.001, eps=1e-8)
    with pytest.raises(
        MetaLearningError, match=r"^model.optimizer.eps is 1e-08, which torch.float16, .* rounds to 0, so"
    ):
        fit(tmp_path, outer=outer, precision="16-true")


def test_an_epsilon_that_half_precision_holds(tmp_path: Path) -> None:
    fit(tmp_path, outer=partial(Adam, lr=0.001, eps=1e-4), precision="16-true")
    fit(tmp_path, outer=partial(Adam, lr=0.001), precision="bf16-true")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ExponentialLR gamma=.nan", r"ExponentialLR\(gamma=nan\) gives meta-step 1 a rate of nan"),
        ("ExponentialLR gamma=-0.5", r"ExponentialLR\(gamma=-0.5\) gives meta-step 1 a rate of -0.0005"),
        ("StepLR step_size=0", "model.lr_scheduler.step_size of StepLR is 0, expected"),
        ("CosineAnnealingLR T_max=0", "model.lr_scheduler.T_max of CosineAnnealingLR is 0, expected"),
        ("CosineAnnealingLR eta_min=-1", r"CosineAnnealingLR\(eta_min=-1.*\) gives meta-step 1 a rate of -0"),
        ("CosineAnnealingWarmRestarts T_0=0", "model.lr_scheduler CosineAnnealingWarmRestarts cannot be made .* T_0"),
        ("OneCycleLR max_lr=0.01 div_factor=0", "model.lr_scheduler OneCycleLR cannot be made .* division by zero"),
    ],
)
def test_the_command_line_says_the_same(
    given: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *settings = given.split()
    schedule = [f"--model.lr_scheduler=torch.optim.lr_scheduler.{name}"]
    schedule += [f"--model.lr_scheduler.{setting}" for setting in settings]
    printed = refused(["fit", *small(tmp_path), *schedule, "--model.compile=false"], capsys)
    assert re.search(said, printed), printed
    assert not [*tmp_path.iterdir()]
