"""Text and YAML files that others made, read within bounds: whatever they hold, reading ends soon and in one line.

YAML lets a few lines stand for gigabytes, since an alias may stand for a list of aliases. Its events are therefore
counted first, as many as there would be with every alias written out, and only then are objects made of them.
"""

import stat
from pathlib import Path
from typing import Any

import yaml

from lightning_meta.errors import MetaLearningError

MOST_BYTES = 2**20  # of a YAML file: a hundred times what `fit` writes
MOST_VALUES = 100_000
MOST_NESTED = 64

_FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
# What PyYAML lets through from values that are not of the type that they claim, such as a 13th month or `!!bool maybe`.
OF_VALUES = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def check_file(path: Path, most: int = MOST_BYTES) -> None:
    """Refuse what cannot be read to its end soon.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        MetaLearningError: the file is missing, not a regular one (reading a pipe or a device may never end) or too
            large.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MetaLearningError(f"{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise MetaLearningError(f"{path} cannot be read: it is not a regular file")
    if found.st_size > most:
        raise MetaLearningError(f"{path} cannot be read: it has {found.st_size:,} bytes, at most {most:,} are expected")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The content of a file in UTF-8.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        MetaLearningError: see `check_file`; or the file is not UTF-8.
    """
    check_file(path, most)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MetaLearningError(f"{path} cannot be read: it is not text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise MetaLearningError(f"{path} cannot be read: {error.strerror or error}") from error


def load_yaml(text: str, name: str) -> Any:
    """What a YAML document says, as plain data.

    Args:
        text: the document.
        name: what to call it in errors, such as the path of its file.

    Raises:
        MetaLearningError: it is not YAML, holds what is not plain data, or stands for more than any settings need.
    """
    try:
        try:
            return _load(text, name, _FASTEST)
        except yaml.YAMLError:  # the slower one says more exactly what is wrong, and where
            return _load(text, name, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" in line {mark.line + 1}" if mark else ""
        raise MetaLearningError(f"{name} is not YAML: {error.problem or error.context}{line}") from error
    except (yaml.YAMLError, *OF_VALUES) as error:
        raise MetaLearningError(f"{name} cannot be read as YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file says, as plain data.

    Raises:
        MetaLearningError: the file cannot be read, or its content is not as `load_yaml` needs it.
    """
    return load_yaml(read_text(path), str(path))


def _load(text: str, name: str, loader: Any) -> Any:
    check_yaml(text, name, loader)
    return yaml.load(text, loader)


def check_yaml(text: str, name: str, loader: Any = _FASTEST) -> None:
    """Count values and depth as they would be with every alias in full, without building anything.

    Args:
        text: the document.
        name: what to call it in errors.
        loader: one of PyYAML's, which says what is wrong with the document.

    Raises:
        MetaLearningError: it stands for more than any settings need.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > MOST_BYTES:
        raise MetaLearningError(
            f"{name} cannot be read as YAML: it has {len(text):,} letters, at most {MOST_BYTES:,} are expected"
        )
    try:
        _count(text, name, loader)
    except yaml.YAMLError as error:
        if "maximum nesting depth" in str(error):  # libyaml's own bound, which it meets as it looks ahead
            raise _too_deep(name) from error
        raise


def _count(text: str, name: str, loader: Any) -> None:
    sizes: dict[str, tuple[int, int]] = {}  # of each anchor: values and depth
    open_: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # collections: anchor, values so far, depth below
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1, 0))
            if event.anchor:
                sizes[event.anchor] = 0, 0  # until it ends
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = open_.pop()
            depth += 1
            if anchor:
                sizes[anchor] = values, depth
            _add(open_, values, depth)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                sizes[event.anchor] = 1, 0
            _add(open_, 1, 0)
        elif isinstance(event, yaml.AliasEvent):
            values, depth = sizes.get(event.anchor, (1, 0))
            if not values:
                raise MetaLearningError(f"{name} cannot be read as YAML: *{event.anchor} is part of itself")
            _add(open_, values, depth)
        _, values, depth = open_[-1]
        if values > MOST_VALUES:
            raise MetaLearningError(f"{name} cannot be read as YAML: it stands for more than {MOST_VALUES:,} values")
        if len(open_) + depth > MOST_NESTED:
            raise _too_deep(name)


def _too_deep(name: str) -> MetaLearningError:
    return MetaLearningError(f"{name} cannot be read as YAML: it is nested more than {MOST_NESTED} deep")


def _add(open_: list[tuple[str | None, int, int]], values: int, depth: int) -> None:
    anchor, before, below = open_[-1]
    open_[-1] = anchor, before + values, max(below, depth)
