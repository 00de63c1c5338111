"""Learners from files: checkpoints of Lightning, and safetensors with a description, which cannot run code."""

import inspect
import pickle
import re
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from lightning_meta import checkpoint_file, learner_file
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.hyperparameters import INSTANTIATOR, public_path

PACKAGES = ("lightning_meta", "torch")  # by whose paths a file that is not trusted names classes and functions
HOMES = tuple(  # where these are defined, since torch.os is Python's os, and torch.hub.load runs code
    f"{package}."
    for package in (
        *(f"lightning_meta.{part}" for part in ("algorithms", "backbones", "inner")),
        "torch.nn",
        "torch.optim",
    )
)
TYPES = {
    "method": str,
    "hyper_parameters": dict,
    "state_dict": dict,
    "trained_on": dict,
    "global_step": int,
    "not_plain": list,
}
PLAIN = re.compile(r"[\w.-]{0,200}")  # jsonargparse would parse others as YAML, and open a file of that name


def load_learner(checkpoint: str | Path, *, trust: bool = False) -> MetaLearner:
    """The learner that a checkpoint holds, of whatever method, ready to adapt.

    Args:
        checkpoint: name of a checkpoint that comes with the package (`pretrained`); or path of a ``.safetensors`` file
            of `save_learner`, or of a ``.ckpt`` file of a run.
        trust: whether the file may run code: unpickle objects, and build networks of classes from outside of this
            package and PyTorch.

    Raises:
        MetaLearningError: there is no such name or file, it is damaged or holds something else, or has to be trusted.
    """
    path = learner_file.find_checkpoint(checkpoint)
    saved = learner_file.read(path) if path.suffix == learner_file.SUFFIX else _read_pickle(path, trust)
    if not isinstance(saved, dict) or not {"state_dict", "hyper_parameters"} <= saved.keys():
        raise MetaLearningError(f"{path} holds no learner: expected a checkpoint of a run of this package")
    if "method" not in saved:
        raise MetaLearningError(
            f"{path} does not say of which method it is, as older checkpoints do not: load it by its class, as "
            "with MAML.load_from_checkpoint(path), and give that learner instead"
        )
    _check_types(path, saved)
    if not trust:
        settings = {key: item for key, item in saved["hyper_parameters"].items() if key not in INSTANTIATOR}
        _check_classes(path, saved["method"], settings)
        saved["hyper_parameters"] = settings | INSTANTIATOR
    kind = _class_of(path, saved["method"])
    stream = BytesIO()
    torch.save(saved, stream)
    stream.seek(0)
    try:
        learner = kind.load_from_checkpoint(stream, map_location="cpu", weights_only=not trust)
    except MetaLearningError:
        raise
    except Exception as error:  # arguments that a class does not know, and what else a file can say
        raise MetaLearningError(f"{path} cannot be rebuilt as {kind.__name__}: {error}") from error
    learner.hparams.update(saved["hyper_parameters"])  # networks are objects by now, and would not be plain any more
    learner.not_plain = set(saved.get("not_plain", []))
    return learner.eval()


def save_learner(learner: MetaLearner, path: str | Path, **description: Any) -> None:
    """Write a learner as ``.safetensors``: its weights, and as JSON its method, settings and data.

    Args:
        learner: any whose settings have a plain form.
        path: of the file.
        **description: further facts in plain data, such as ``title``, ``results`` or ``command``.

    Raises:
        MetaLearningError: a setting, such as a network, is an object that cannot be written down.
    """
    if learner.not_plain:
        raise MetaLearningError(
            f"{', '.join(sorted(learner.not_plain))} of the learner cannot be written down: build it by class_path and "
            "init_args, as the command line does, or keep the checkpoint of Lightning"
        )
    about = learner.trained_on | {
        "method": public_path(type(learner)),
        "hyper_parameters": dict(learner.hparams),
        "meta_steps": learner.meta_steps,
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learner.state_dict().items()}
    learner_file.write(path, tensors, about | description)


def _read_pickle(path: Path, trust: bool) -> Any:
    checkpoint_file.verify(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        if trust:
            raise MetaLearningError(f"{path} is not a checkpoint, or is damaged ({error})") from error
        raise MetaLearningError(
            f"{path} is not a plain checkpoint: it may be damaged, or hold objects whose loading runs code. Load it "
            "only if you trust who made it: trust=True, or --trust"
        ) from error
    except Exception as error:  # a damaged file fails in many ways
        raise MetaLearningError(f"{path} is not a checkpoint, or is damaged ({error})") from error


def _check_types(path: Path, saved: dict[str, Any]) -> None:
    """Refuse a file that says things of other types than are written."""
    for name, kind in TYPES.items():
        if not isinstance(saved.get(name, kind()), kind):
            raise MetaLearningError(f"{path} is damaged: its {name} is {saved[name]!r:.100}, expected {kind.__name__}")
    plain = saved.get("trained_on", {}).get("preprocessing")
    if plain is not None:
        try:
            Preprocessing.from_plain(plain)
        except MetaLearningError as error:
            raise MetaLearningError(f"{path} is damaged: {error}") from error


def _check_classes(path: Path, *settings: Any) -> None:
    """Refuse classes and functions by import path that are not of this package's or PyTorch's building blocks."""
    for value in settings:
        if isinstance(value, dict):
            _check_classes(path, *value, *value.values())
        elif isinstance(value, list | tuple):
            _check_classes(path, *value)
        elif isinstance(value, str) and not _is_harmless(path, value):
            raise MetaLearningError(
                f"{path} names {value}, which is not a building block of this package or of PyTorch: build it only if "
                "you trust who made the file: trust=True, or --trust"
            )


def _is_harmless(path: Path, value: str) -> bool:
    """Whether this is a plain word that is not a file's, or the import path of a building block."""
    if not PLAIN.fullmatch(value) or Path(value).is_file():
        return False
    module, _, _ = value.rpartition(".")
    if not module:
        return True
    if module.partition(".")[0] not in PACKAGES:
        return False
    named = _imported(path, value)
    return (inspect.isclass(named) or inspect.isfunction(named)) and f"{named.__module__}.".startswith(HOMES)


def _imported(path: Path, name: str) -> Any:
    """What a module defines or imports by this name; not an attribute of that, as in torch.os.system."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise MetaLearningError(f"{path} names {name}, which cannot be imported ({error})") from error


def _class_of(path: Path, method: str) -> type[MetaLearner]:
    kind = _imported(path, method)
    if not (isinstance(kind, type) and issubclass(kind, MetaLearner)):
        raise MetaLearningError(f"{path} is of the method {method}, which is not a MetaLearner")
    return kind
