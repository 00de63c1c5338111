"""Picture files to learn from or to predict: found, read one after the other, and left out where unreadable."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_meta.data.files.image_cache import CACHE_FOLDER
from lightning_meta.data.files.pictures import SUFFIXES, Preprocessing, open_picture
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference.pictures import picture_files, polarity_notes

THUMBNAIL = 112  # pixels, the longer side


class PictureFile(NamedTuple):
    """A file, and the class that its folder says it belongs to, if any."""

    path: Path
    truth: str | None


@dataclass
class Pictures:
    """Picture files that could be read, in the order given.

    Attributes:
        files: those that could be read.
        x: inputs of the network, floats (files, channels, side, side).
        thumbnails: PNG files of at most `THUMBNAIL` pixels, of the first ones.
        left_out: why each of the others could not be read; the message names the file.
        notes: what a person should know about them, one sentence each.
    """

    files: list[PictureFile]
    x: Tensor
    thumbnails: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def query_files(sources: Sequence[Path], classes: Collection[str]) -> tuple[list[PictureFile], list[str]]:
    """The picture files in folders and their sub-folders, one level deep, and those that are named themselves.

    Args:
        sources: folders and files.
        classes: that were learned: a picture in a sub-folder of such a name is known to belong to it.

    Returns:
        The files in order, and notes, one sentence each.

    Raises:
        MetaLearningError: a source does not exist, cannot be listed or is a pipe or a device, or there is no picture at
            all.
    """
    files: list[PictureFile] = []
    others: list[Path] = []
    strange: set[str] = set()
    for source in sources:
        if not source.exists():
            raise MetaLearningError(f"--query is {source}, which does not exist: name a folder of pictures, or files")
        if not source.is_dir():
            if not source.is_file():  # reading a pipe may never end
                raise MetaLearningError(
                    f"--query is {source}, which is not a regular file: name a folder of pictures, or files"
                )
            files.append(PictureFile(source, None))
            continue
        try:
            parts = (part for part in source.iterdir() if part.is_dir() and part.name != CACHE_FOLDER)
            for folder in (source, *sorted(part for part in parts if not part.name.startswith("."))):
                known = folder != source and folder.name in classes
                found = picture_files(folder)
                files += [PictureFile(path, folder.name if known else None) for path in found]
                strange |= {folder.name} if found and folder != source and not known else set()
                listed = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
                others += sorted(set(listed) - set(found))
        except OSError as error:
            raise MetaLearningError(f"--query is {source}, which cannot be listed ({error})") from error
    if not files:
        raise MetaLearningError(
            f"--query is {', '.join(map(str, sources))}, which holds no pictures ({', '.join(SUFFIXES)})"
        )
    notes = []
    if strange:
        notes.append(
            f"{some(sorted(strange))} of --query {'is' if len(strange) == 1 else 'are'} not among the classes of "
            "--support: the true class of the pictures in there counts as unknown"
        )
    if others:
        named = some([path.name for path in others])
        notes.append(f"ignored {len(others)} files whose names do not end as those of pictures do: {named}")
    return files, notes


def read_files(
    files: Sequence[PictureFile], preprocessing: Preprocessing, *, strict: bool = False, thumbnails: int = 0
) -> Pictures:
    """Read pictures one after the other, so that memory holds a single one in its full size.

    Args:
        files: the pictures.
        preprocessing: of the learner.
        strict: whether one that cannot be read is an error; otherwise it is left out.
        thumbnails: how many of the first readable ones to keep for the eye.

    Raises:
        MetaLearningError: one cannot be read although ``strict``, or none can.
    """
    found = Pictures([], torch.empty(0))
    pixels, turned = [], 0
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of PIL, about sizes and metadata of files that are judged here
                picture = open_picture(file.path)
        except MetaLearningError as error:
            if strict:
                raise
            found.left_out.append(str(error))
            continue
        found.files.append(file)
        pixels.append(preprocessing.pixels(picture))
        turned += preprocessing.is_reversed(picture)
        if len(found.thumbnails) < thumbnails:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            stream = BytesIO()
            picture.save(stream, "PNG")
            found.thumbnails.append(stream.getvalue())
    if not pixels:
        first = f"; {found.left_out[0]}" if found.left_out else ""
        raise MetaLearningError(f"none of the {len(files)} pictures can be read{first}")
    found.x = preprocessing.inputs(torch.from_numpy(np.stack(pixels)))
    found.notes = polarity_notes(turned, len(pixels), preprocessing)
    return found


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names in one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
