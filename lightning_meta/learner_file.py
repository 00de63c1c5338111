"""Learner files: weights as safetensors, and as JSON what they are. Reading one runs no code, and needs no run."""

import difflib
import json
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


def pretrained() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    folder = Path(str(resources.files("lightning_meta"))) / "inference" / "pretrained"
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


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


def write(path: str | Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights, and plain data that describe them."""
    save_file(tensors, path, {_KEY: json.dumps(description)})


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """What a learner file says of itself.

    Raises:
        MetaLearningError: it is damaged or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise MetaLearningError(f"{path} is damaged or holds no learner ({error})") from error
    if not isinstance(about, dict):
        raise MetaLearningError(f"{path} is damaged: expected a description by name")
    return about


def read(path: Path) -> dict[str, Any]:
    """A learner file as a checkpoint of Lightning, which holds weights and no state of a training.

    Raises:
        MetaLearningError: it is damaged or of another kind.
    """
    about = describe_checkpoint(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    minutes = about.get("minutes")
    return {
        "state_dict": tensors,
        "hyper_parameters": about.get("hyper_parameters", {}),
        "method": about.get("method", ""),
        "trained_on": {key: about[key] for key in _OF_DATA if key in about},
        "global_step": about.get("meta_steps", 0),
        "train_seconds": 60.0 * minutes if isinstance(minutes, int | float) else 0.0,
        "not_plain": [],
        "pytorch-lightning_version": version("pytorch-lightning"),
    }
