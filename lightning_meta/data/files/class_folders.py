"""Trees with a folder of pictures for each class: which pictures they hold, and how their classes are split."""

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torchvision.datasets.folder import find_classes, has_file_allowed_extension, make_dataset

from lightning_meta.bounded_files import load_yaml, read_text
from lightning_meta.data.files.image_cache import CACHE_FOLDER
from lightning_meta.data.files.pictures import SUFFIXES
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class ClassFolders(NamedTuple):
    """What a tree holds."""

    files: dict[str, list[str]]  # class, sorted by name -> its pictures, relative to the root, sorted; may be empty
    splits: dict[Split, list[str]] | None  # the classes of every split, sorted; None where the tree has no splits


def list_pictures(root: Path) -> ClassFolders:
    """The pictures of ``root/CLASS`` or ``root/{train,val,test}/CLASS``, in sub-folders of a class, too.

    Files of other kinds and all whose names begin with a dot are left out.

    Raises:
        MetaLearningError: there are no folders, or a class is in two splits.
    """
    try:
        names = _folders(root)
        parts = [name for name in SPLIT_NAMES if name in names and _folders(root / name)]
        if not parts:
            files = _pictures(root, "", names)
            if not any(files.values()):
                raise MetaLearningError(
                    f"data.root is {root}, whose folders hold no pictures: expected {root}/CLASS/*.png or "
                    f"{root}/{{train,val,test}}/CLASS/*.png, of {', '.join(sorted(SUFFIXES))}"
                )
            return ClassFolders(files, None)
        return _join({part: _pictures(root, part, _folders(root / part)) for part in parts}, root)
    except OSError as error:
        raise MetaLearningError(
            f"data.root is {root}, which cannot be read ({error.strerror}): name the folder that holds a folder of "
            "pictures for each class, or folders train, val and test of such folders"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dictionary; of two for one split, the first would be lost."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the split {twice[0]} stands there twice")
    return dict(pairs)


def read_split_file(path: Path, classes: Collection[str], held: str) -> dict[Split, list[str]]:
    """The classes of every split from a file.

    Args:
        path: JSON, or YAML by its suffix, such as ``{"train": ["ash"], "val": ["elm"], "test": ["oak"]}``, or text with
            lines such as ``train ash``. The name of a split instead of a list, as in ``"test": "train"``, gives a split
            the classes of that one.
        classes: that there are.
        held: what holds them, for messages, such as ``data.y holds``.

    Raises:
        MetaLearningError: the file cannot be read, names a class twice, or one that does not exist.
    """
    try:
        text = read_text(path)
        if path.suffix in (".yaml", ".yml"):
            named = load_yaml(text, str(path))
        else:
            named = json.loads(text, object_pairs_hook=_once) if text.lstrip().startswith("{") else _lines(text)
        _once([(SPLIT_NAMES[key], key) for key in named])
        same = {SPLIT_NAMES[key]: SPLIT_NAMES[other] for key, other in named.items() if isinstance(other, str)}
        lists = [(SPLIT_NAMES[key], [*map(_text, names)]) for key, names in named.items() if not isinstance(names, str)]
    except (MetaLearningError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path} cannot be read: ")
        reason = f"unexpected split {error}" if isinstance(error, KeyError) else reason
        raise MetaLearningError(
            f"data.split_file is {path}, which cannot be read ({reason}): expected JSON such as "
            '{"train": ["ash", "elm"], "val": [], "test": ["oak"]}, or lines such as `train ash`'
        ) from error
    splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for split, listed in lists:
        for name in listed:
            if name in seen:
                raise MetaLearningError(
                    f"data.split_file is {path}, which names class {name} twice: name it once, or, to test on the "
                    'classes that are trained on, write "test": "train"'
                )
            seen.add(name)
        splits[split] = sorted(splits[split] + listed)
    for split, other in same.items():
        splits[split] = splits[other]
    if unknown := sorted(seen - set(classes)):
        raise MetaLearningError(
            f"data.split_file is {path}, which names {few(unknown)}, but {held} {few(sorted(classes))}: name those"
        )
    return splits


def few(names: Sequence[str]) -> str:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted."""
    try:
        names, _ = find_classes(folder)
    except FileNotFoundError:
        if not folder.is_dir():
            raise
        return []
    return [name for name in names if name != CACHE_FOLDER and not name.startswith(".")]


def _pictures(root: Path, part: str, classes: list[str]) -> dict[str, list[str]]:
    """Paths of the pictures of each class, relative to the root."""
    files: dict[str, list[str]] = {name: [] for name in classes}
    if not classes:
        return files
    start = os.path.join(root, "")

    def is_picture(path: str) -> bool:
        return has_file_allowed_extension(path, SUFFIXES) and f"{os.sep}." not in path[len(start) - 1 :]

    places = {name: place for place, name in enumerate(classes)}
    for path, place in make_dataset(root / part, places, is_valid_file=is_picture, allow_empty=True):
        files[classes[place]].append(path[len(start) :])
    return files


def _join(parts: dict[str, dict[str, list[str]]], root: Path) -> ClassFolders:
    """One list of classes of all splits."""
    files: dict[str, list[str]] = {}
    splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
    home: dict[str, str] = {}
    for part, classes in parts.items():
        if both := [name for name in classes if name in home]:
            raise MetaLearningError(
                f"data.root is {root}, where {home[both[0]]} and {part} both hold {few(both)}, but learners are "
                f"tested on classes that they were not trained on: set data.root to {root / home[both[0]]}, and "
                "data.validation_classes and data.test_classes to how many of its classes to hold out"
            )
        home |= dict.fromkeys(classes, part)
        files |= classes
        splits[SPLIT_NAMES[part]] = sorted(splits[SPLIT_NAMES[part]] + list(classes))
    return ClassFolders({name: files[name] for name in sorted(files)}, splits)


def _lines(text: str) -> dict[str, list[str]]:
    """Class names by split, of lines that hold a split and a class."""
    named: dict[str, list[str]] = {}
    for line in text.splitlines():
        split, _, name = line.strip().partition(" ")
        if split:
            named.setdefault(split, []).append(name.strip())
    return named


def _text(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{name!r} is not the name of a class")
    return name
