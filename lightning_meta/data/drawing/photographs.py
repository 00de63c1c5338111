"""What the data sets of small colour photographs share: files, cache and normalisation."""

import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from lightning_meta.data.drawing.images import ClassImages, FileEpisodes, Rotations
from lightning_meta.data.files.image_cache import Write, cached_images, fingerprint
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.data.files.pixel_moments import PixelMoments
from lightning_meta.data.files.safe_pickle import damaged
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_IMAGES_AT_ONCE = 512  # bounds the memory


class LabelledImages(NamedTuple):
    """The images and labels of one split."""

    labels: np.ndarray  # (images,): equal for images of one class
    decode: Callable[[np.ndarray], np.ndarray]  # rows (rows,) -> uint8 (rows, height, width, 3)


@dataclass(kw_only=True, eq=False)
class RGBEpisodes(FileEpisodes):
    """Few-shot classification of colour photographs, (3, side, side) in 0..1, or normalised.

    A subclass names its files (`sources`), reads them (`read`) and downloads them (`fetch`). The classes of each split
    are those of the files and do not depend on the seed.

    Args:
        normalise: whether each channel has its mean over the training classes' images subtracted and is divided by
            its standard deviation over them; otherwise images are in 0..1.
    """

    title: ClassVar[str]  # of the data set
    side: ClassVar[int]  # pixels

    normalise: bool = False
    rotations: Rotations = field(default="none", init=False)

    @property
    def preprocessing(self) -> Preprocessing:
        """A photograph is cropped to a square and shrunk, and normalised as these are."""
        moments = self.data.moments.flatten(1).tolist() if self.data.moments is not None else (None, None)
        mean, deviation = (None if values is None else tuple(values) for values in moments)
        return Preprocessing(side=self.side, channels=3, resample="lanczos", mean=mean, deviation=deviation)

    @abstractmethod
    def sources(self) -> dict[Split, list[str]]:
        """The files of every split, relative to ``root``.

        Raises:
            MetaLearningError: some are missing.
        """

    @abstractmethod
    def read(self, split: Split, files: list[str]) -> LabelledImages:
        """Images and labels of a split from its files.

        Raises:
            MetaLearningError: a file is damaged or of another kind.
        """

    @abstractmethod
    def fetch(self) -> None:
        """Download the data set to ``root``.

        Raises:
            MetaLearningError: the download failed.
        """

    def load(self) -> ClassImages:
        """All images, uint8 (images, 3, side, side), classes of training first, then of validation and test.

        Raises:
            MetaLearningError: the data set is missing, cannot be downloaded, or is damaged.
        """
        try:
            sources = self.sources()
        except MetaLearningError:
            if not self.download:
                raise
            self.fetch()
            sources = self.sources()
        marked = fingerprint(
            self.folder, (file for files in sources.values() for file in files),
            self.side, {split: len(files) for split, files in sources.items()},
        )  # fmt: skip
        file_name = f"{self.title.lower()}{self.side}.images"
        images, facts = cached_images(
            self.title, file_name, marked, lambda write: self._decode(sources, write), self.cache_folder
        )
        counts = torch.tensor([count for split in SPLITS for count in facts["counts"][split]])
        classes = torch.arange(len(counts)).split([len(facts["counts"][split]) for split in SPLITS])
        moments = torch.tensor(facts["moments"], dtype=torch.float32)[..., None, None] if self.normalise else None
        return ClassImages(images, counts.cumsum(0) - counts, counts, dict(zip(SPLITS, classes, strict=True)), moments)

    def _decode(self, sources: dict[Split, list[str]], write: Write) -> dict[str, Any]:
        moments = PixelMoments(3)
        counts = {split: self._decode_split(split, sources[split], write, moments) for split in SPLITS}
        return {"counts": counts, "moments": moments.moments()}

    def _decode_split(self, split: Split, files: list[str], write: Write, moments: PixelMoments) -> list[int]:
        """Write the images class by class, count the training images' values and return the size of each class."""
        labels, decode = self.read(split, files)
        order = np.argsort(labels, kind="stable")
        for start in range(0, len(order), _IMAGES_AT_ONCE):
            images = decode(order[start : start + _IMAGES_AT_ONCE]).transpose(0, 3, 1, 2)
            write(images)
            if split == "train":
                moments.add(images)
        counts: list[int] = np.unique(labels, return_counts=True)[1].tolist()
        return counts

    def check_labels(self, path: Path, labels: object, images: int) -> np.ndarray:
        """Return the labels of a file, one integer for each image, or refuse them."""
        try:
            array = check_integers(labels)
        except ValueError as error:
            raise damaged(self.title, path, f"labels are {error}, expected a list of integers") from error
        if len(array) != images or not images:
            raise damaged(self.title, path, f"{len(array)} labels for {images} images")
        return array

    def check_pixels(self, path: Path, images: object) -> np.ndarray:
        """Return the images of a file, uint8 (images, side, side, 3), or refuse them."""
        shape = (self.side, self.side, 3)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
            found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise damaged(self.title, path, f"images are {found}, expected uint8 {('images', *shape)}")
        return np.asarray(images)


def check_integers(values: object) -> np.ndarray:
    """Return a list, tuple or array from a file as int64 (values,), or refuse it.

    Raises:
        ValueError: it is something else; the message says what.
    """
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{values.dtype} {values.shape}")
    elif not isinstance(values, list | tuple):
        raise ValueError(type(values).__name__)
    else:  # before NumPy: nested lists that share their content would take as much memory as they seem to hold
        for value in values:
            if not isinstance(value, int | np.integer):
                raise ValueError(f"{type(values).__name__} with {type(value).__name__}")
    try:
        return np.asarray(values, np.int64)
    except OverflowError:
        raise ValueError(f"{type(values).__name__} with integers above 64 bits") from None


def missing(title: str, path: Path, remedy: str) -> MetaLearningError:
    """The error for a file or folder of a data set that does not exist."""
    return MetaLearningError(
        f"{title}: {path} does not exist. Say which folder holds it with --data.root DIR, or {remedy}"
    )


def decode_image(source: Path | BytesIO, side: int, name: str, title: str) -> np.ndarray:
    """Decode an image to uint8 (side, side, 3).

    Raises:
        MetaLearningError: it cannot be read or has another size.
    """
    try:
        with Image.open(source) as image:
            pixels = np.asarray(image.convert("RGB"))
        if pixels.shape != (side, side, 3):
            raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, expected {side} x {side}")
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and more for a damaged file
        raise MetaLearningError(
            f"{name} is not a readable image of {title} ({error}): delete the file and what lies beside it, and "
            f"download {title} again with --data.download true"
        ) from error
    return pixels


def image_names(folder: str) -> list[str]:
    """Names of the PNG images in a folder, sorted; none where the folder does not exist or its name is invalid."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(".png") and entry.is_file())
    except (OSError, ValueError):
        return []
