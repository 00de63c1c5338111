"""Trees with a folder of pictures for each class: which pictures they hold, and which classes their splits have."""

import os
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import find_classes, has_file_allowed_extension, make_dataset

from lightning_meta.data.files.class_splits import SPLIT_NAMES, few
from lightning_meta.data.files.image_cache import CACHE_FOLDER
from lightning_meta.data.files.pictures import SUFFIXES
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError


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
