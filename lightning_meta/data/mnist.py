"""MNIST: 70,000 handwritten digits, here as tasks for a learned optimizer.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE
1998
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.utils import calculate_md5

from lightning_meta.data.drawing.images import ClassImages, FileEpisodes, Rotations
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

VALIDATION = 10000  # images at the end of the training set

CLASSES = 10

MD5 = {  # of the published files as they are unpacked; torchvision has those of the packed ones, which it downloads
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(kw_only=True, eq=False)
class MNISTEpisodes(FileEpisodes):
    """Classification of digits, 28 x 28 pixels, one channel, in 0..1.

    All splits have the same ten classes, but different images: training tasks are drawn from the first 50,000 of the
    60,000 training images, validation tasks from the other 10,000 and test tasks from the 10,000 test images. A task is
    a training set for a new network, so ``shots`` is large. Its labels are the digits in a random order.

    The files are in ``root/MNIST/raw``, as torchvision lays them out.

    Args:
        check_files: whether the files must be the published ones, byte for byte; otherwise those of another data set in
            the same format will do.
    """

    classes_shared = True

    ways: int = 10
    shots: int = 256
    queries: int = 50
    meta_batch_size: int = 1
    validation_tasks: int = 10
    test_tasks: int = 100
    check_files: bool = True
    rotations: Rotations = field(default="none", init=False)
    cache_dir: str | None = field(default=None, init=False)

    @property
    def preprocessing(self) -> Preprocessing:
        """Digits on dark ground stay what they are, at a smaller size."""
        return Preprocessing(side=28, channels=1, resample="lanczos", background=0.0)

    def load(self) -> ClassImages:
        """All digits, uint8 (70000, 1, 28, 28), by split and digit.

        Raises:
            MetaLearningError: the data set is missing, incomplete, another one, or cannot be fetched.
        """
        try:
            train, test = (
                _RawMNIST(self.folder, train=train, download=self.download, checked=self.check_files)
                for train in (True, False)
            )
        except (RuntimeError, OSError, ValueError, AssertionError) as error:
            raise MetaLearningError(
                f"MNIST cannot be read in {self.folder / 'MNIST' / 'raw'} ({error}): say which folder holds MNIST/raw "
                "with --data.root DIR, or fetch it with --data.download true"
            ) from error
        images = torch.cat([train.data, test.data])
        splits = torch.tensor([0] * (len(train) - VALIDATION) + [1] * VALIDATION + [2] * len(test))
        classes = splits * CLASSES + torch.cat([train.targets, test.targets])
        counts = classes.bincount(minlength=3 * CLASSES)
        return ClassImages(
            images[classes.argsort(stable=True)][:, None],
            counts.cumsum(0) - counts,
            counts,
            {split: torch.arange(CLASSES) + CLASSES * place for place, split in enumerate(get_args(Split))},
            names=[str(digit) for _ in get_args(Split) for digit in range(CLASSES)],
        )


class _RawMNIST(MNIST):
    """torchvision's with checksums; it would prefer a copy in a former format, which it looks for by the class's name.

    Args:
        root: folder that holds ``MNIST/raw``.
        checked: whether the files must be the published ones.
        options: of torchvision's.
    """

    def __init__(self, root: Path, checked: bool, **options: Any) -> None:
        self._checked = checked
        super().__init__(root, **options)

    @property
    def raw_folder(self) -> str:
        """The folder of the files, which torchvision names after the class, too."""
        return str(Path(self.root, "MNIST", "raw"))

    def _load_data(self) -> tuple[Tensor, Tensor]:
        for name, expected in MD5.items():
            path = Path(self.raw_folder, name)
            if not path.is_file():  # reading a pipe may never end
                raise OSError(f"{path} is not a regular file")
            if self._checked and name.startswith("train" if self.train else "t10k"):
                _check_content(path, expected)
        data: tuple[Tensor, Tensor] = super()._load_data()
        return data


def _check_content(path: Path, expected: str) -> None:
    found = calculate_md5(path)
    if found != expected:
        raise MetaLearningError(
            f"MNIST: {path} is not the published file (its MD5 is {found}, expected {expected}): delete {path.parent} "
            "and fetch it with --data.download true, or take these digits as they are with --data.check_files false"
        )
