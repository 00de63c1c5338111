"""What is checked of a learner's settings."""

from collections.abc import Callable, Iterable

from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, LayerRates


def check_settings(inner: InnerLoop, task_chunk: int | str) -> None:
    """Refuse counts that make no sense."""
    names = "steps", "evaluation_steps", "batch_size", "evaluation_batch_size"
    counts = {f"inner.{name}": getattr(inner, name) for name in names}
    counts |= {} if task_chunk == "auto" else {"task_chunk": task_chunk}
    for name, value in counts.items():
        lowest = 0 if name.endswith("steps") else 1
        if value is not None and (type(value) is not int or value < lowest):
            raise MetaLearningError(f"model.{name} is {value!r}, expected a number that is at least {lowest}")


def check_scored_steps(choose: Callable[[int], Iterable[int]], inner: InnerLoop, algorithm: str) -> list[int]:
    """The steps of a method's own choice, refused without those that stand for before and after adaptation."""
    for steps in (inner.steps, inner.evaluation_steps):
        scored = list(choose(steps))
        if scored != sorted({0, *scored, steps}) or scored[-1] != steps:
            raise MetaLearningError(
                f"scored_steps({steps}) of {algorithm} gives {scored!s:.80}, expected rising inner steps from 0 to "
                f"{steps}: add what is missing"
            )
    return scored


def check_learned_rule(inner: InnerLoop, learned: bool, learns: bool, algorithm: str) -> None:
    """Refuse a rule whose parameters would never change, or that has none for some of the steps."""
    rule = type(inner.optimizer).__name__
    if learned and not learns:
        raise MetaLearningError(
            f"model.inner.optimizer is {rule}, which learns parameters of its own, but {algorithm} gives them no "
            "gradient: set it to SGD or Adam, or take MAML or FOMAML, which do"
        )
    steps = max(inner.steps, inner.evaluation_steps)
    if isinstance(inner.optimizer, LayerRates) and inner.optimizer.steps < steps:
        raise MetaLearningError(
            f"model.inner.optimizer.steps is {inner.optimizer.steps}, but a task takes up to {steps} inner steps "
            f"(model.inner.steps, model.inner.evaluation_steps): set it to {steps}, or lower those"
        )
