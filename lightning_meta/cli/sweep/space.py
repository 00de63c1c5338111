"""What the key ``search`` of a sweep file holds: the space, what is measured, and for how many trials."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_meta.errors import MetaLearningError

DIRECTIONS = ("maximize", "minimize")
PRUNERS = ("median", "none")
EXAMPLE = "{low: 0.0001, high: 0.1, log: true} or {choices: [1, 5]}"


@dataclass(frozen=True)
class Parameter:
    """A setting that is searched: a range of numbers, or some values."""

    low: Any = None
    high: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, Any]:
        """The least and the greatest value; the first and the last choice."""
        return (self.choices[0], self.choices[-1]) if self.choices else (self.low, self.high)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"from {self.low} to {self.high}{' on a log scale' if self.log else ''}"


@dataclass(frozen=True)
class Search:
    """A search by Optuna."""

    parameters: dict[str, Parameter]
    metric: str = "val_accuracy"
    direction: str = "maximize"
    trials: int = 20
    pruner: str = "median"

    def corners(self) -> list[list[str]]:
        """The arguments of a run with the least value of every parameter, and of one with the greatest."""
        ends = {name: parameter.ends() for name, parameter in self.parameters.items()}
        return [[argument(name, values[end]) for name, values in ends.items()] for end in (0, 1)]


def argument(name: str, value: Any) -> str:
    """A setting as on the command line.

    >>> argument("model.inner.steps", 5), argument("model.weights", [0, 1]), argument("model", "MAML")
    ('--model.inner.steps=5', '--model.weights=[0, 1]', '--model=MAML')
    """
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def read_search(path: Path, content: Any) -> Search:
    """The search of a sweep file.

    Args:
        path: of the file, for messages.
        content: under the key ``search``.

    Raises:
        MetaLearningError: a key is unknown or missing, or a value is not of its kind.
    """
    keys = tuple(Search.__dataclass_fields__)
    if not isinstance(content, dict) or not content.keys() <= {*keys} or not content.get("parameters"):
        wrong = sorted(map(str, content.keys() - {*keys})) if isinstance(content, dict) else []
        what = f"search.{wrong[0]} does not exist" if wrong else "search has no parameters"
        raise MetaLearningError(f"{path}: {what}; it holds parameters, and may hold {', '.join(keys[1:])}")
    parameters = content["parameters"]
    if not isinstance(parameters, dict):
        raise MetaLearningError(f"{path}: search.parameters is {parameters!r}, expected settings with {EXAMPLE}")
    search = Search(
        **{**content, "parameters": {str(key): _parameter(path, key, parameters[key]) for key in parameters}}
    )
    for name, allowed in {"direction": DIRECTIONS, "pruner": PRUNERS}.items():
        if getattr(search, name) not in allowed:
            raise MetaLearningError(
                f"{path}: search.{name} is {getattr(search, name)!r}, expected {' or '.join(allowed)}"
            )
    if not isinstance(search.trials, int) or isinstance(search.trials, bool) or search.trials < 1:
        raise MetaLearningError(f"{path}: search.trials is {search.trials!r}, expected a number of at least 1")
    if not isinstance(search.metric, str) or not search.metric.startswith("val"):
        raise MetaLearningError(
            f"{path}: search.metric is {search.metric!r}, expected what a validation logs, such as val_accuracy or "
            "val_loss"
        )
    return search


def _parameter(path: Path, name: Any, content: Any) -> Parameter:
    """One parameter."""
    if not isinstance(name, str) or name.startswith("-"):
        raise MetaLearningError(f"{path}: search.parameters holds {name!r}, expected a setting without dashes")
    where = f"{path}: search.parameters.{name}"
    if not isinstance(content, dict) or content.keys() not in ({"choices"}, {"low", "high"}, {"low", "high", "log"}):
        raise MetaLearningError(f"{where} is {content!r}, expected {EXAMPLE}")
    if "choices" in content:
        return _choices(where, content["choices"])
    low, high, log = content["low"], content["high"], content.get("log", False)
    low, high = (_number(value) for value in (low, high))
    if low is None or high is None or not low < high:
        raise MetaLearningError(f"{where} is {content!r}, expected numbers of which low is the smaller")
    if not isinstance(log, bool) or (log and low <= 0):
        raise MetaLearningError(
            f"{where} is {content!r}, expected log to be true or false, and low above 0 where it is true"
        )
    return Parameter(low, high, log)


def _choices(where: str, choices: Any) -> Parameter:
    plain = isinstance(choices, list) and all(isinstance(one, str | int | float | bool) for one in choices)
    if not plain or len({repr(choice) for choice in choices}) < 2:
        raise MetaLearningError(f"{where}.choices is {choices!r}, expected a list of at least two texts or numbers")
    return Parameter(choices=tuple(choices))


def _number(value: Any) -> float | int | None:
    """A finite number; YAML reads 1e-4, which lacks its point, as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if known else None
