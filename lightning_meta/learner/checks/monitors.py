"""What callbacks and schedules wait for: a figure that a validation logs, known before the first meta-step."""

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_OWN = ("lightning_meta.", "pytorch_lightning.")
_OTHERS = ("train/", "lr-")  # what training and Lightning's LearningRateMonitor log begins with
_SHOWN = 30  # steps
_COUNTS = ("step", "epoch")  # which Lightning adds to what is logged


def check_monitors(learner: "MetaLearner", episode: Episode) -> None:
    """Refuse to wait for what nothing logs, hours perhaps until the first validation, or for a falling accuracy.

    Args:
        learner: whose trainer validates.
        episode: of its data, whose targets are labels or real values.

    Raises:
        MetaLearningError: a checkpoint, a callback or a schedule does so.
    """
    labels = not episode.support_y.is_floating_point()
    by_step, headlines = learner.scores.logged("val", labels)
    known = (*headlines, *by_step, *_COUNTS)
    for setting, monitor in _monitors(learner):
        if monitor == "val_accuracy" and not labels:
            raise MetaLearningError(
                f"{setting} is val_accuracy, but these data have real targets, of which only a loss is measured: "
                "watch val_loss, with mode min"
            )
        if monitor in known or monitor.startswith(_OTHERS) or not _all_own(learner):
            continue
        near = difflib.get_close_matches(monitor, known, 1)
        hint = f"did you mean {near[0]}? A validation logs" if near else "a validation logs"
        steps = learner.scores.steps
        last = ", ".join(name for name in by_step if f"/step_{steps[-1]}" in name)
        scored = ", ".join(map(str, steps)) if len(steps) <= _SHOWN else f"0 to {steps[-1]}"
        raise MetaLearningError(
            f"{setting} is {monitor}, which nothing logs: {hint} {', '.join(headlines)}, and of the scored inner steps "
            f"({scored}), here the last, {last}"
        )
    for callback in learner.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and "accuracy" in callback.monitor and callback.mode == "min":
            raise MetaLearningError(
                f"the monitor of EarlyStopping among trainer.callbacks is {callback.monitor}, but its mode is min, "
                "which stops when the accuracy no longer falls: set mode to max"
            )


def _monitors(learner: "MetaLearner") -> Iterator[tuple[str, str]]:
    """What is waited for, by the name of the setting."""
    for callback in learner.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            name = type(callback).__name__
            saves = isinstance(callback, ModelCheckpoint)
            yield "checkpoint.monitor" if saves else f"the monitor of {name} among trainer.callbacks", monitor
    if learner._lr_scheduler is not None:
        configured = learner.configure_optimizers()  # of which the trainer makes its own later
        schedule = configured.get("lr_scheduler") if isinstance(configured, dict) else None
        if isinstance(schedule, dict) and isinstance(monitor := schedule.get("monitor"), str):
            yield "model.lr_scheduler.monitor", monitor


def _all_own(learner: "MetaLearner") -> bool:
    """Whether a person's own learner or callbacks, which may log anything, are absent."""
    kinds = [type(learner), *map(type, learner.trainer.callbacks)]  # type: ignore[attr-defined]
    return all(kind.__module__.startswith(_OWN) for kind in kinds)
