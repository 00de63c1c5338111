"""From what a person has, files, folders, pictures or arrays, to a network's inputs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_meta.data.files.image_cache import CACHE_FOLDER
from lightning_meta.data.files.pictures import SUFFIXES, Preprocessing, as_grey_or_rgb, open_picture
from lightning_meta.errors import MetaLearningError

Picture: TypeAlias = str | Path | bytes | Image.Image | np.ndarray  # path, content of a file, or pixels (uint8)


def read_pictures(sources: Iterable[Picture], preprocessing: Preprocessing) -> tuple[Tensor, list[str]]:
    """Inputs of a network for pictures of any kind and size, and what a person should know about them.

    Args:
        sources: paths, contents of files, pictures of PIL, or uint8 arrays (height, width) or (height, width, 3).
        preprocessing: of the learner.

    Returns:
        Floats (pictures, channels, side, side), and notes, one sentence each.

    Raises:
        MetaLearningError: one of them is not a picture; it is named.
    """
    pixels, turned = [], 0
    for number, source in enumerate(sources):  # one at a time, since a photograph takes a thousand times its input
        picture = _picture(source, number)
        pixels.append(preprocessing.pixels(picture))
        turned += preprocessing.is_reversed(picture)
    if not pixels:
        raise MetaLearningError("no picture was given, expected at least one")
    inputs = preprocessing.inputs(torch.from_numpy(np.stack(pixels)))
    return inputs, polarity_notes(turned, len(pixels), preprocessing)


def polarity_notes(turned: int, pictures: int, preprocessing: Preprocessing) -> list[str]:
    """What to say where some pictures had the opposite of the training data's polarity: one sentence, or none."""
    if not turned:
        return []
    kinds = ("light on dark", "dark on light")
    theirs, trained = kinds if (preprocessing.background or 0) > 0.5 else kinds[::-1]
    return [
        f"{turned} of {pictures} pictures {'is' if turned == 1 else 'are'} {theirs}, where the learner was "
        f"trained on {trained}: turned round"
    ]


def class_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures below a folder with a sub-folder for each class, and the class of each, both in sorted order.

    Raises:
        MetaLearningError: there are no sub-folders, or one holds no picture.
    """
    if not folder.is_dir():
        raise MetaLearningError(f"{folder} is not a folder: name one that holds a folder of pictures for each class")
    parts = (part.name for part in folder.iterdir() if part.is_dir())
    names = sorted(name for name in parts if not name.startswith(".") and name != CACHE_FOLDER)
    if not names:
        raise MetaLearningError(
            f"{folder} holds no folders: put the pictures of each class into one, named as the class"
        )
    files: list[Path] = []
    labels: list[str] = []
    for name in names:
        found = picture_files(folder / name)
        if not found:
            raise MetaLearningError(f"{folder / name} holds no pictures ({', '.join(SUFFIXES)}): add some or remove it")
        files += found
        labels += [name] * len(found)
    return files, labels


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder whose names end as those of pictures do, sorted."""
    paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in paths if path.is_file())


def are_pictures(given: Any) -> bool:
    """Whether these are pictures to preprocess, not inputs as a network takes them."""
    if isinstance(given, np.ndarray | Tensor):
        return given.dtype in (np.uint8, torch.uint8) and given.ndim >= 3
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        return False
    first = given[0]
    pixels = isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim >= 2
    return pixels or isinstance(first, str | Path | bytes | Image.Image)


def _picture(source: Picture, number: int) -> Image.Image:
    if isinstance(source, str | Path):
        return open_picture(Path(source).expanduser())
    if isinstance(source, bytes):
        return open_picture(source, f"picture {number}")
    if isinstance(source, Image.Image):
        return as_grey_or_rgb(source)
    pixels = np.asarray(source)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise MetaLearningError(
            f"picture {number} is an array of {pixels.dtype} {pixels.shape}, expected uint8 (height, width) or "
            "(height, width, 3)"
        )
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
