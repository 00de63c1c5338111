"""A cache of the pictures in a tree of folders, decoded by all cores."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from lightning_fabric.utilities.data import suggested_max_num_workers
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lightning_meta.data.files.image_cache import Write, cached_images, fingerprint
from lightning_meta.data.files.pictures import CONTRAST, Preprocessing, border_brightness, open_picture
from lightning_meta.data.files.pixel_moments import PixelMoments
from lightning_meta.errors import MetaLearningError

SERIAL = 1000  # pictures at most that one process decodes, since starting others takes longer
SAMPLE = 1000  # training pictures, evenly spread, whose borders are looked at
NEARLY_ALL = 0.95  # share of those with a border of the same kind, which is then the background
_AT_ONCE = 64  # pictures that a process hands over together

Read: TypeAlias = Callable[[Image.Image], Any]


class CachedPictures(NamedTuple):
    """Decoded pictures, class by class, and what was found while decoding them."""

    images: Tensor  # uint8 (pictures, channels, side, side)
    counts: list[int]  # readable pictures of each class
    background: float | None  # brightness of the border of nearly all training pictures; None where borders differ
    moments: (
        list[list[float]] | None
    )  # mean and deviation of the training pictures' channels; None where there are none
    unreadable: dict[str, str]  # file -> what is wrong with it


def cached_pictures(
    root: Path, files: dict[str, list[str]], training: set[str], preprocessing: Preprocessing, cache_dir: Path
) -> CachedPictures:
    """The pictures from a matching cache, or decoded and then cached, as in `cached_images`.

    A cache matches as long as no file was added, removed or changed, and the training classes and the preprocessing
    are the same. Pictures that cannot be read are left out.

    Args:
        root: folder of the pictures.
        files: the pictures of each class, relative to ``root``.
        training: the classes to train on.
        preprocessing: how a picture becomes an input; its ``background`` is found from the training pictures.
        cache_dir: folder of the cache.

    Raises:
        MetaLearningError: there is no room for the cache.
    """
    listed = [file for pictures in files.values() for file in pictures]
    labels = np.repeat(np.arange(len(files)), [len(pictures) for pictures in files.values()])
    trained = np.array([name in training for name in files])[labels]
    title = root.resolve().name or "pictures"

    def decode(write: Write) -> dict[str, Any]:
        sample = [listed[row] for row in np.flatnonzero(trained)]
        borders = [border for batch in _read(root, sample[:: -(-len(sample) // SAMPLE) or 1], border_brightness)
                   for border in batch]  # fmt: skip
        background = common_border([border for border in borders if not isinstance(border, str)])
        counts, moments = np.zeros(len(files), np.int64), PixelMoments(preprocessing.channels)
        unreadable: dict[str, str] = {}
        done = 0
        with tqdm(desc=f"{title}: decoding", total=len(listed), unit=" pictures", disable=None) as progress:
            for batch in _read(root, listed, replace(preprocessing, background=background).pixels):
                rows = [done + place for place, picture in enumerate(batch) if not isinstance(picture, str)]
                unreadable |= {listed[done + place]: said for place, said in enumerate(batch) if isinstance(said, str)}
                if rows:
                    pictures = np.stack([batch[row - done] for row in rows])
                    write(pictures)
                    counts += np.bincount(labels[rows], minlength=len(files))
                    moments.add(pictures[trained[rows]])
                done += len(batch)
                progress.update(len(batch))
        facts = {"counts": counts.tolist(), "background": background, "moments": moments.moments()}
        return facts | {"unreadable": unreadable}

    made_of = fingerprint(root, listed, preprocessing, sorted(training), {name: len(files[name]) for name in files})
    settings = f"{preprocessing.side}x{preprocessing.channels}-{preprocessing.resample}"
    images, facts = cached_images(title, f"{title}-{settings}.images", made_of, decode, cache_dir)
    return CachedPictures(images, **facts)


def common_border(borders: list[float]) -> float | None:
    """The median brightness of the dark, or of the light borders, where nearly all borders are of that kind."""
    values = np.array(borders)
    for alike in (values < CONTRAST, values > 1 - CONTRAST):
        if alike.any() and alike.mean() >= NEARLY_ALL:
            return float(np.median(values[alike]))
    return None


def _read(root: Path, files: list[str], read: Read) -> Iterator[list[Any]]:
    """What ``read`` makes of each picture, in order and batch by batch; of one that cannot be opened, the message."""
    alone = len(files) <= SERIAL or multiprocessing.current_process().daemon  # which may not start others
    return iter(DataLoader(
        _Pictures(root, files, read), batch_size=_AT_ONCE, collate_fn=list,
        num_workers=0 if alone else suggested_max_num_workers(1),
        generator=torch.Generator(),  # the global one is the learner's
    ))  # fmt: skip


class _Pictures(Dataset[Any]):
    """The pictures as a data set."""

    def __init__(self, root: Path, files: list[str], read: Read) -> None:
        self.root, self.files, self.read = root, files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.read(open_picture(self.root / self.files[index], self.files[index]))
        except MetaLearningError as error:
            return str(error)
