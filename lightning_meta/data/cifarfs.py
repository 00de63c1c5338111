"""CIFAR-FS: the 100 classes of CIFAR-100 as a few-shot data set.

Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers", arXiv 1805.08136
"""

import os
from pathlib import Path

import numpy as np

from lightning_meta.data.drawing.photographs import LabelledImages, RGBEpisodes, decode_image, image_names, missing
from lightning_meta.data.files.downloads import ZENODO, download_archive
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

IMAGES = 600  # of each class
FOLDER = "cifarfs/cifar100"


class CIFARFSEpisodes(RGBEpisodes):
    """CIFAR-FS: 64 / 16 / 20 classes of 600 images, 32 x 32 pixels.

    Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers", arXiv 1805.08136.

    ``root/cifarfs/cifar100/data/CLASS/*.png``, and the classes of every split in
    ``root/cifarfs/cifar100/splits/bertinetto/{train,val,test}.txt``.
    """

    title = "CIFAR-FS"
    side = 32

    def sources(self) -> dict[Split, list[str]]:
        files: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
        seen: dict[str, Path] = {}
        for split, name in zip(files, ("train", "val", "test"), strict=True):
            path = self.folder / FOLDER / "splits" / "bertinetto" / f"{name}.txt"
            try:
                classes = path.read_text("utf-8").split()
                if not classes:
                    raise ValueError("it names none")
            except FileNotFoundError:
                raise missing(self.title, path, "fetch it with --data.download true") from None
            except (OSError, ValueError) as error:
                raise self._damaged(f"{path} is not a list of classes ({error})") from error
            for label in classes:
                if label in seen:
                    raise self._damaged(f"class {label} is in both {seen[label]} and {path}")
                seen[label] = path
            files[split] = class_files(self.title, self.folder, classes)
        return files

    def _damaged(self, what: str) -> MetaLearningError:
        return MetaLearningError(
            f"{self.title}: {what}: delete the folder {self.folder / FOLDER} and download it again with "
            "--data.download true"
        )

    def read(self, split: Split, files: list[str]) -> LabelledImages:
        return read_folders(self.folder, files)

    def fetch(self) -> None:
        download_archive(self.title, ZENODO + "cifar100.zip", self.folder / "cifarfs", ["cifar100"])


def class_files(title: str, root: Path, classes: list[str]) -> list[str]:
    """Paths, relative to ``root``, of the images of these classes, class by class.

    Raises:
        MetaLearningError: a class does not have 600 images.
    """
    files = []
    for label in classes:
        names = image_names(os.path.join(root, FOLDER, "data", label))
        if len(names) != IMAGES:
            raise MetaLearningError(
                f"{title}: {root / FOLDER / 'data' / label} holds {len(names)} images, expected {IMAGES}. Say which "
                f"folder holds {FOLDER} with --data.root DIR, or delete {root / FOLDER} and download CIFAR-FS again "
                "with --data.download true"
            )
        files += [f"{FOLDER}/data/{label}/{name}" for name in names]
    return files


def read_folders(root: Path, files: list[str]) -> LabelledImages:
    """Images in a folder for each class."""

    def decode(rows: np.ndarray) -> np.ndarray:
        return np.stack([decode_image(root / files[row], 32, str(root / files[row]), "CIFAR-FS") for row in rows])

    return LabelledImages(np.array([file.split("/")[-2] for file in files]), decode)
