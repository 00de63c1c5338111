"""Learners from files: checkpoints of Lightning, and safetensors with a description, which cannot run code."""

import difflib
import json
import pickle
from importlib import import_module, resources
from io import BytesIO
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.hyperparameters import INSTANTIATOR, public_path

KEY = "lightning_meta"  # of the description among a file's metadata
SUFFIX = ".safetensors"
TRUSTED = ("lightning_meta.", "torch.")  # where the classes of a file that is not trusted may come from


def pretrained() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    folder = Path(str(resources.files("lightning_meta.inference"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


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
    path = find_checkpoint(checkpoint)
    saved = _read_safetensors(path) if path.suffix == SUFFIX else _read_pickle(path, trust)
    if not isinstance(saved, dict) or not {"state_dict", "hyper_parameters"} <= saved.keys():
        raise MetaLearningError(f"{path} holds no learner: expected a checkpoint of a run of this package")
    if "method" not in saved:
        raise MetaLearningError(
            f"{path} does not say of which method it is, as older checkpoints do not: load it by its class, as "
            "with MAML.load_from_checkpoint(path), and give that learner instead"
        )
    if not trust:
        _check_classes(path, saved["method"], saved["hyper_parameters"])
        saved["hyper_parameters"] |= INSTANTIATOR
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
    learner.not_plain = set(saved["not_plain"])
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
    save_file(tensors, path, {KEY: json.dumps(about | description)})


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file says of itself.

    Raises:
        MetaLearningError: it is damaged or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MetaLearningError(f"{path} is damaged or holds no learner ({error})") from error
    return about


def find_checkpoint(checkpoint: str | Path) -> Path:
    """The file that a name or a path stands for.

    Raises:
        MetaLearningError: there is none; the near names are said.
    """
    known = pretrained()
    if str(checkpoint) in known:
        return known[str(checkpoint)]
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(str(checkpoint), known, 2, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"use a path, or one of {', '.join(known)}"
    raise MetaLearningError(f"{checkpoint} is neither a file nor the name of a checkpoint: {hint}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    about = describe_checkpoint(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    trained_on = {key: about.get(key) for key in ("data", "ways", "shots", "rows", "preprocessing") if key in about}
    return {
        "state_dict": tensors,
        "hyper_parameters": about.get("hyper_parameters", {}),
        "method": about.get("method", ""),
        "trained_on": trained_on,
        "global_step": about.get("meta_steps", 0),
        "not_plain": [],
        "pytorch-lightning_version": pytorch_lightning.__version__,
    }


def _read_pickle(path: Path, trust: bool) -> Any:
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


def _check_classes(path: Path, *settings: Any) -> None:
    """Refuse classes and functions by import path that come from outside of this package and PyTorch."""
    for value in settings:
        if isinstance(value, dict):
            _check_classes(path, *(item for key, item in value.items() if key != "_instantiator"))
        elif isinstance(value, list | tuple):
            _check_classes(path, *value)
        elif isinstance(value, str) and "." in value and not value.startswith(TRUSTED):
            raise MetaLearningError(
                f"{path} names {value}, which is neither of this package nor of PyTorch: build it only if you trust "
                "who made the file: trust=True, or --trust"
            )


def _class_of(path: Path, method: str) -> type[MetaLearner]:
    module, _, name = method.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise MetaLearningError(f"{path} is of the method {method}, which cannot be imported ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, MetaLearner)):
        raise MetaLearningError(f"{path} is of the method {method}, which is no MetaLearner")
    return kind
