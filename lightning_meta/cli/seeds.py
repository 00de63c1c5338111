"""One seed for weights and tasks: what the command line makes of ``seed_everything`` and of a seed of the data."""

from typing import Any

from lightning_meta.errors import MetaLearningError

_OPTIONS = "--data.seed", "--data.init_args.seed"


def task_seed(seed_everything: bool | int) -> int:
    """The seed of the stream of tasks."""
    if isinstance(seed_everything, bool):
        raise MetaLearningError(
            f"seed_everything is {seed_everything}, expected a number: it names the stream of tasks as well"
        )
    return seed_everything


def check_options(args: list[str]) -> None:
    """Refuse a seed of the data among the options, which ``seed_everything`` would overwrite silently."""
    for place, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        if name in _OPTIONS:
            _refuse(value if equals else " ".join(args[place + 1 : place + 2]))


def check_settings(settings: Any) -> None:
    """Refuse a seed of the data in a configuration, as `check_options` does."""
    data = settings.get("data") if isinstance(settings, dict) else None
    for place in (data, data.get("init_args") if isinstance(data, dict) else None):
        if isinstance(place, dict) and "seed" in place:
            _refuse(place["seed"])


def _refuse(seed: Any) -> None:
    raise MetaLearningError(
        f"data.seed is {seed}, but on the command line seed_everything names the stream of tasks as well as the "
        "weights: leave data.seed out, and set seed_everything instead"
    )
