"""Constructor arguments as plain data, so that checkpoints load with ``weights_only=True``."""

import dataclasses
import functools
import inspect
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.core.mixins import HyperparametersMixin
from pytorch_lightning.utilities.parsing import collect_init_args
from torch import Tensor, nn

from lightning_meta.backbones import Pretrained

INSTANTIATOR = {"_instantiator": "pytorch_lightning.cli.instantiate_module"}


def save_settings(learner: LightningModule) -> set[str]:
    """Keep in the learner's hyperparameters what its constructor was given, as far as it has a plain form.

    To be called in the constructor of the base class. What a subclass hands on as ``**settings`` is kept, what it
    settles itself is not.

    Returns:
        The names of arguments without a plain form, but those left at their default.
    """
    constructor: Any = inspect.currentframe().f_back  # type: ignore[union-attr]
    names = collect_init_args(constructor, [], classes=(HyperparametersMixin,))[-1].keys()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`")  # described just below
        learner.save_hyperparameters(frame=constructor)
    given = {name: value for name, value in learner.hparams.items() if name in names}
    plain = describe_all(given)
    learner.hparams.clear()
    learner.save_hyperparameters(INSTANTIATOR | plain)
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(learner)).parameters.items()}
    return {name for name in given.keys() - plain.keys() if given[name] is not defaults.get(name)}


def keep_descriptions(learner: Any, saved: Mapping[str, Any], given: Collection[str]) -> None:
    """Keep how a checkpoint describes what a learner was built from, such as its backbone, for its next checkpoint.

    Args:
        learner: that was built from ``saved``.
        saved: settings in plain form.
        given: names of settings that took the place of those saved.
    """
    kept = {name: value for name, value in saved.items() if name in learner.not_plain and name not in given}
    learner.save_hyperparameters(kept)
    learner.not_plain -= kept.keys()


class Default:
    """What a constructor takes where nothing is given, called by its name: pickle can write it even for a lambda.

    Args:
        owner: the class.
        name: of the argument.
    """

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the default."""
        return _default(self.owner, self.name)(*args, **keywords)


def by_name(learner: LightningModule, name: str, value: Any) -> Any:
    """A lambda that is the default of this argument in the learner's class or a base of it as a `Default`."""
    if not inspect.isfunction(value) or value.__name__ != "<lambda>":
        return value
    owners = (kind for kind in type(learner).__mro__ if "__init__" in vars(kind) and _default(kind, name) is value)
    return next((Default(kind, name) for kind in owners), value)


def _default(owner: type, name: str) -> Any:
    parameter = inspect.signature(owner.__init__).parameters.get(name)  # type: ignore[misc]
    return None if parameter is None else parameter.default


def describe(value: Any) -> Any:
    """The plain form of an argument in which LightningCLI writes it; raises TypeError for what has none.

    Numbers, strings and containers of them stay; functions and classes become their import path; dataclasses,
    ``functools.partial`` of a class and the losses of ``torch.nn`` become ``class_path`` and ``init_args``; a tensor,
    as the weights of such a loss, becomes a list.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        plain = {key: describe(item) for key, item in value.items()}
        if str(plain.get("class_path")).rpartition(".")[2] == Pretrained.__name__:
            plain.get("init_args", {})["weights"] = None  # a checkpoint holds the weights and needs no other file
        return plain
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        # A dataclass without base class is written field by field, any other by its class.
        return (
            fields
            if type(value).__bases__ == (object,)
            else {"class_path": public_path(type(value)), "init_args": fields}
        )
    if isinstance(value, functools.partial):
        made_by_parser = value.func.__module__.startswith("jsonargparse")  # whose own function stands before the class
        kind = value.args[-1] if made_by_parser and value.args else value.func
        if inspect.isclass(kind) and (made_by_parser or not value.args):
            return {"class_path": public_path(kind), "init_args": describe(value.keywords)}
    if type(value).__module__ == nn.modules.loss.__name__:  # whose arguments are attributes of the same names
        names = inspect.signature(type(value)).parameters.keys() - {"size_average", "reduce"}  # deprecated
        settings = {name: getattr(value, name) for name in sorted(names)}
        return {"class_path": public_path(type(value)), "init_args": describe(settings)}
    if isinstance(value, Tensor):
        return value.tolist()
    if inspect.isclass(value) or (inspect.isfunction(value) and "<" not in value.__qualname__):
        return public_path(value)
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


def public_path(value: Any) -> str:
    """The shortest import path below the top package, which outlives moves of files inside a package."""
    parts, name = value.__module__.split("."), value.__qualname__
    for length in range(2, len(parts)):
        package = ".".join(parts[:length])
        if vars(sys.modules[package]).get(name) is value:
            return f"{package}.{name}"
    return f"{value.__module__}.{name}"
