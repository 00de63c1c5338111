"""Learner files: weights as safetensors, and as JSON what they are. Reading one runs no code, and needs no run."""

import difflib
import json
import os
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_meta.errors import MetaLearningError

SUFFIX = ".safetensors"
_KEY = "lightning_meta"  # of the description among a file's metadata
_OF_DATA = "data", "ways", "shots", "rows", "inputs", "preprocessing"
_LARGE = 2**53  # from where floats cannot count
_DEPTH = 50  # of settings within settings, at most


def pretrained() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    folder = Path(str(resources.files("lightning_meta"))) / "inference" / "pretrained"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def is_pretrained(path: Path) -> bool:
    """Whether a file is one of those that come with the package."""
    return path in pretrained().values()


def find_checkpoint(checkpoint: str | Path) -> Path:
    """The file that a name or a path stands for.

    Raises:
        MetaLearningError: there is none; the near names are said.
    """
    known = pretrained()
    if str(checkpoint) in known:
        return known[str(checkpoint)]
    path = Path(os.path.expanduser(checkpoint))
    if path.is_file():
        return path
    hint = near_names(checkpoint) or f"use a path, or one of {', '.join(known)}"
    raise MetaLearningError(f"{checkpoint} is neither a file nor the name of a checkpoint: {hint}")


def near_names(checkpoint: str | Path) -> str:
    """A question after checkpoints whose names are like this, if any."""
    near = difflib.get_close_matches(str(checkpoint), pretrained(), 2, 0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def write(path: str | Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights, and plain data that describe them."""
    save_file(tensors, path, {_KEY: json.dumps(description)})


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """What a learner file says of itself.

    Raises:
        MetaLearningError: it is damaged or of another kind.
    """
    return _open(path)[0]


def read(path: Path) -> dict[str, Any]:
    """A learner file as a checkpoint of Lightning, which holds weights and no state of a training.

    Raises:
        MetaLearningError: it is damaged or of another kind, or says of itself what cannot be.
    """
    about, tensors = _open(path, weights=True)
    for name, (sound, expected) in _EXPECTED.items():
        if not sound(about.get(name)):
            raise MetaLearningError(f"{path} is damaged: its {name} is {about.get(name)!r:.100}, expected {expected}")
    return {
        "state_dict": tensors,
        "hyper_parameters": about["hyper_parameters"],
        "method": about["method"],
        "trained_on": {key: about[key] for key in _OF_DATA if key in about},
        "global_step": about["meta_steps"],
        "train_seconds": 60.0 * (about.get("minutes") or 0),
        "not_plain": [],
        "pytorch-lightning_version": version("pytorch-lightning"),
    }


def _open(path: Path, weights: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description, and the weights where they are asked for."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
        about: dict[str, Any] = json.loads(metadata.get(_KEY, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise MetaLearningError(f"{path} is damaged or holds no learner ({error})") from error
    if _KEY not in metadata:
        raise MetaLearningError(f"{path} holds weights without their learner, expected a file of save_learner")
    if not isinstance(about, dict):
        raise MetaLearningError(f"{path} is damaged: expected a description by name")
    return about, tensors


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGE


def _is_duration(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < _LARGE)  # type: ignore[operator]


def _are_settings(value: object) -> bool:
    return isinstance(value, dict) and _is_shallow(value)


def _is_shallow(value: object, depth: int = _DEPTH) -> bool:
    """Whether nothing lies deeper than whoever compares it can follow."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in below)


def _is_shape(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_count, value)))


_EXPECTED: dict[str, tuple[Any, str]] = {
    "method": (lambda value: isinstance(value, str) and value, "the import path of a class"),
    "hyper_parameters": (_are_settings, "settings by name"),
    "meta_steps": (_is_count, "a number of meta-steps"),
    "minutes": (_is_duration, "a duration"),
    "inputs": (_is_shape, "the shape of an input"),
    "preprocessing": (lambda value: value is None or isinstance(value, dict), "settings by name"),
}
