"""Constructor arguments as plain data, so that checkpoints load with ``weights_only=True``."""

import dataclasses
import functools
import inspect
from typing import Any

INSTANTIATOR = {"_instantiator": "pytorch_lightning.cli.instantiate_module"}


def describe(value: Any) -> Any:
    """The plain form of an argument in which LightningCLI writes it; raises TypeError for what has none.

    Numbers, strings and containers of them stay; functions and classes become their import path; dataclasses and
    ``functools.partial`` of a class become ``class_path`` and ``init_args``.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        # A dataclass without base class is written field by field, any other by its class.
        return fields if type(value).__bases__ == (object,) else {"class_path": _path(type(value)), "init_args": fields}
    if isinstance(value, functools.partial) and inspect.isclass(value.func) and not value.args:
        return {"class_path": _path(value.func), "init_args": describe(value.keywords)}
    if inspect.isclass(value) or (inspect.isfunction(value) and "<" not in value.__qualname__):
        return _path(value)
    raise TypeError(f"{value!r} has no plain form")


def describe_all(arguments: dict[str, Any]) -> dict[str, Any]:
    """The plain forms of those arguments that have one; modules and lambdas must be given again when loading."""
    plain = {}
    for name, value in arguments.items():
        try:
            plain[name] = describe(value)
        except TypeError:
            continue
    return plain


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
