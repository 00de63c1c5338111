"""The schedule of the outer learning rate: any of torch's, with the length of the run filled in."""

import copy
import functools
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LRSchedulerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.outer import check_epsilon, check_rates
from lightning_meta.learner.plateau import step_at_validations
from lightning_meta.learner.run_length import foreseen_meta_steps

_RUN_LENGTH = ("T_max", "total_steps")  # arguments that mean the length of the run in every schedule that has them
_EXACT = (schedules.StepLR, "step_size"), (schedules.ConstantLR, "total_iters")  # meta-steps that torch waits for
_ABOVE_ZERO = "T_max", "total_iters", "step_size_up", "step_size_down"  # lengths in meta-steps
_AT_LEAST_ZERO = "patience", "cooldown"  # numbers of validations
_LONGEST_REHEARSAL = 100_000  # meta-steps, about a second; those after them are checked when they come
_UNFORESEEABLE = schedules.LambdaLR, schedules.MultiplicativeLR, schedules.ReduceLROnPlateau


class ScheduleOverTheRun(Protocol):
    """A schedule whose length is that of the run; the command line leaves these arguments to `configure_schedule`."""

    def __call__(self, optimizer: Optimizer, /, *, T_max: int, total_steps: int, total_iters: int) -> LRScheduler:  # noqa: N803
        """The schedule of the optimizer's rates."""


# The command line tries one after the other: a length that is given belongs to the second.
Schedule = ScheduleOverTheRun | LRSchedulerCallable


def configure_schedule(schedule: Schedule | None, optimizer: Optimizer, trainer: Trainer) -> OptimizerLRScheduler:
    """The optimizer with its schedule by meta-steps, as Lightning wants them.

    Args:
        schedule: a schedule class, a ``functools.partial`` of one with its settings, or a function of the optimizer;
            None for a constant rate.
        optimizer: the outer optimizer.
        trainer: says how many meta-steps the run has, and when it validates.

    Raises:
        MetaLearningError: the schedule cannot be made with these settings, or gives invalid rates.
    """
    check_epsilon(optimizer)
    check_rates(optimizer, 0, lambda: source_of_rates(None))
    if schedule is None:
        return optimizer
    length = _run_length(schedule, trainer.max_steps)
    if length and trainer.max_steps < 1:
        raise MetaLearningError(
            f"model.lr_scheduler {_name(schedule)} takes {' and '.join(length)} from trainer.max_steps, which is "
            f"{trainer.max_steps}: set one of them"
        )
    remedy = "Set what it needs with --model.lr_scheduler.NAME (in Python: functools.partial of the class)"
    with _refusing(schedule, "cannot be made with these settings", remedy):
        scheduler = schedule(optimizer, **length)
        _check_kind(schedule, scheduler, optimizer)
        _check_numbers(schedule, scheduler)
    _rehearse(schedule, scheduler, optimizer, foreseen_meta_steps(trainer))
    settings: Any = {"scheduler": scheduler, "interval": "step"}
    if isinstance(scheduler, ReduceLROnPlateau):
        settings |= step_at_validations(scheduler, trainer)
    return {"optimizer": optimizer, "lr_scheduler": settings}


def source_of_rates(schedule: Schedule | None) -> str:
    """The setting that the outer rates come from, with what was given to it."""
    if schedule is None:
        return "model.optimizer"
    kind = _class_of(schedule)
    known = inspect.signature(kind).parameters if kind else {}
    shown = {
        name: value
        for name, value in _given(schedule).items()
        if not any(map(callable, value if isinstance(value, list | tuple) else [value]))
        and not (name in known and repr(value) == repr(known[name].default))  # the command line gives all
    }
    settings = textwrap.shorten(", ".join(f"{name}={value}" for name, value in shown.items()), 200)
    return f"model.lr_scheduler {_name(schedule)}" + (f"({settings})" if settings else "")


def _check_kind(schedule: Schedule, scheduler: Any, optimizer: Optimizer) -> None:
    """Refuse what is not a schedule of this optimizer, or waits for a figure that nobody has named."""
    if getattr(scheduler, "optimizer", None) is not optimizer:
        other = " of another optimizer" if hasattr(scheduler, "optimizer") else ""
        raise MetaLearningError(
            f"model.lr_scheduler {_name(schedule)} gives a {type(scheduler).__name__}{other}, expected a schedule of "
            "torch.optim.lr_scheduler for the optimizer that it is called with"
        )
    if isinstance(scheduler, schedules.ReduceLROnPlateau) and not isinstance(scheduler, ReduceLROnPlateau):
        raise MetaLearningError(
            f"model.lr_scheduler {_name(schedule)} is torch's, which is not told what to watch: take "
            "pytorch_lightning.cli.ReduceLROnPlateau with its monitor, such as val_loss (in Python: "
            'functools.partial(ReduceLROnPlateau, monitor="val_loss"))'
        )


def _check_numbers(schedule: Schedule, scheduler: LRScheduler) -> None:
    """Refuse settings of torch's own schedules that torch accepts, but with which they never change a rate as meant."""
    for part in _parts(scheduler):
        if not _is_of_torch(part):
            continue
        own = vars(part) | (_given(schedule) if _class_of(schedule) is type(part) else {})
        for name, value in own.items():
            if (type(part), name) in _EXACT:
                valid, expected = float(value).is_integer() and value >= 1, "a whole number that is at least 1"
            elif name in _ABOVE_ZERO:
                valid, expected = value is None or value > 0, "a number above 0"
            elif name in _AT_LEAST_ZERO:
                valid, expected = value >= 0, "a number that is at least 0"
            elif name == "factor" and isinstance(part, schedules.ReduceLROnPlateau):
                valid, expected = 0 <= value < 1, "a factor for the rate that is at least 0 and below 1"
            else:
                continue
            if not valid:
                raise MetaLearningError(
                    f"model.lr_scheduler.{name} of {type(part).__name__} is {value}, expected {expected}"
                )


def _rehearse(schedule: Schedule, scheduler: LRScheduler, optimizer: Optimizer, steps: int) -> None:
    """Go through the rates of the run on copies, before it; where a function of a person's own gives them, the first.

    Args:
        schedule: that gave the scheduler.
        scheduler: of the optimizer; it is left as it is.
        optimizer: the outer optimizer; it is left as it is.
        steps: meta-steps of the run, as far as they can be foreseen.
    """
    known = all(_is_of_torch(part) and not isinstance(part, _UNFORESEEABLE) for part in _parts(scheduler))
    trial = copy.copy(optimizer)  # whose parameters are the same
    trial.param_groups = [
        {name: value if name == "params" else copy.deepcopy(value) for name, value in group.items()}
        for group in optimizer.param_groups
    ]
    source = functools.partial(source_of_rates, schedule)
    check_rates(trial, 0, source)
    if not known:
        return
    remedy = f"Have its length (such as total_steps) hold for the run's {steps} meta-steps, or lower trainer.max_steps"
    rehearsed = copy.deepcopy(scheduler, {id(optimizer): trial})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses the optimizer's own steps
        for step in range(1, min(steps, _LONGEST_REHEARSAL) + 1):
            with _refusing(schedule, f"fails after meta-step {step - 1}", remedy):
                rehearsed.step()
            if step < steps:
                check_rates(trial, step, source)


def _parts(scheduler: Any) -> Iterator[Any]:
    """A schedule and those that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _parts(part)


def _is_of_torch(part: Any) -> bool:
    """Whether its attributes mean what torch documents: one of torch's schedules, or Lightning's of one."""
    return type(part) is ReduceLROnPlateau or type(part).__module__.startswith("torch.optim.")


def _given(schedule: Any) -> dict[str, Any]:
    """The settings that a schedule was given by name."""
    return schedule.keywords if isinstance(schedule, functools.partial) else {}


@contextmanager
def _refusing(schedule: Schedule, what: str, remedy: str) -> Iterator[None]:
    """Say of torch's errors which setting they come from, and what to do."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise MetaLearningError(f"model.lr_scheduler {_name(schedule)} {what}: {error}. {remedy}") from error


def _run_length(schedule: Any, steps: int) -> dict[str, int]:
    """The argument that means the length of the run, unless the schedule has none or it is given."""
    kind = _class_of(schedule)
    if kind is None:
        return {}
    given = _given(schedule)
    own = inspect.signature(kind).parameters
    length = [name for name in _RUN_LENGTH if name in own]
    length += ["total_iters"] if issubclass(kind, PolynomialLR) else []
    if any(given.get(name) is not None for name in (*length, "epochs")):
        return {}
    return dict.fromkeys(length, steps)


def _class_of(schedule: Any) -> type | None:
    """The class behind a schedule, also where jsonargparse put its own function around it."""
    parts = [schedule]
    if isinstance(schedule, functools.partial):
        wrapped = str(schedule.func.__module__).startswith("jsonargparse.")
        parts = [schedule.func, *(schedule.args if wrapped else ())]
    return next((part for part in parts if inspect.isclass(part)), None)


def _name(schedule: Any) -> str:
    return getattr(_class_of(schedule) or schedule, "__name__", repr(schedule))
