"""Settings and the files that they name, read by jsonargparse within the bounds of `lightning_meta.bounded_files`."""

import contextlib
import pathlib
from typing import Any

import yaml
from jsonargparse import Path, get_loader, set_loader

from lightning_meta.bounded_files import OF_VALUES, check_yaml, read_text

_LONGEST = 40  # letters of a value that are shown
_load = get_loader("yaml")


def bound_values() -> None:
    """Let jsonargparse refuse what stands for gigabytes, or never ends, wherever it reads a value or a file.

    It has a setting for how text is loaded and none for how files are read, so that method is replaced.
    """
    set_loader("yaml", load, (yaml.YAMLError,))
    Path.read_text = _read_text  # type: ignore[method-assign, assignment]


def load(text: str) -> Any:
    """The value that a text stands for, as jsonargparse reads it.

    Raises:
        MetaLearningError: it stands for more than any settings need.
        yaml.YAMLError: it is not YAML, and may be a word.
    """
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    check_yaml(text, f"the value {shown}")
    try:
        return _load(text)
    except OF_VALUES as error:
        raise yaml.YAMLError(str(error)) from error


def _read_text(path: Path) -> str:
    text = read_text(pathlib.Path(path.absolute))
    with contextlib.suppress(yaml.YAMLError):  # of which loading says more
        check_yaml(text, str(path))
    return text
