"""The schedule of the outer learning rate: any of torch's, with the length of the run filled in."""

import functools
import inspect
from typing import Any, Protocol

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LRSchedulerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from lightning_meta.errors import MetaLearningError

_RUN_LENGTH = ("T_max", "total_steps")  # arguments that mean the length of the run in every schedule that has them


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
        MetaLearningError: the schedule cannot be made with these settings.
    """
    if schedule is None:
        return optimizer
    try:
        scheduler = schedule(optimizer, **_run_length(schedule, trainer.max_steps))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise MetaLearningError(
            f"model.lr_scheduler {_name(schedule)} cannot be made with these settings: {error}. Set what it needs with "
            "--model.lr_scheduler.NAME (in Python: functools.partial of the class)"
        ) from error
    settings: Any = {"scheduler": scheduler, "interval": "step"}
    if isinstance(scheduler, ReduceLROnPlateau):  # what it watches is measured at validations
        settings |= {"monitor": scheduler.monitor, "frequency": trainer.val_check_interval}
    return {"optimizer": optimizer, "lr_scheduler": settings}


def _run_length(schedule: Any, steps: int) -> dict[str, int]:
    """The argument that means the length of the run, unless the schedule has none or it is given."""
    kind = _class_of(schedule)
    if kind is None:
        return {}
    given = schedule.keywords if isinstance(schedule, functools.partial) else {}
    own = inspect.signature(kind).parameters
    length = [name for name in _RUN_LENGTH if name in own]
    length += ["total_iters"] if issubclass(kind, PolynomialLR) else []
    if any(given.get(name) is not None for name in (*length, "epochs")):
        return {}
    return dict.fromkeys(length, steps)


def _class_of(schedule: Any) -> type | None:
    """The class behind a schedule, also where jsonargparse put its own function around it."""
    parts = (schedule.func, *schedule.args) if isinstance(schedule, functools.partial) else (schedule,)
    return next((part for part in parts if inspect.isclass(part)), None)


def _name(schedule: Any) -> str:
    return getattr(_class_of(schedule) or schedule, "__name__", repr(schedule))
