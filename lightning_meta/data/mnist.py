"""MNIST: 70,000 handwritten digits, here as tasks for a learned optimizer.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE
1998
"""

from dataclasses import dataclass, field
from typing import get_args

import torch
from torchvision.datasets import MNIST

from lightning_meta.data.drawing.images import ClassImages, FileEpisodes, Rotations
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

VALIDATION = 10000  # images at the end of the training set

CLASSES = 10


@dataclass(kw_only=True, eq=False)
class MNISTEpisodes(FileEpisodes):
    """Classification of digits, 28 x 28 pixels, one channel, in 0..1.

    All splits have the same ten classes, but different images: training tasks are drawn from the first 50,000 of the
    60,000 training images, validation tasks from the other 10,000 and test tasks from the 10,000 test images. A task is
    a training set for a new network, so ``shots`` is large. Its labels are the digits in a random order.

    The files are in ``root/MNIST/raw``, as torchvision lays them out.
    """

    classes_shared = True

    ways: int = 10
    shots: int = 256
    queries: int = 50
    meta_batch_size: int = 1
    validation_tasks: int = 10
    test_tasks: int = 100
    rotations: Rotations = field(default="none", init=False)
    cache_dir: str | None = field(default=None, init=False)

    @property
    def preprocessing(self) -> Preprocessing:
        """Digits on dark ground stay what they are, at a smaller size."""
        return Preprocessing(side=28, channels=1, resample="lanczos", background=0.0)

    def load(self) -> ClassImages:
        """All digits, uint8 (70000, 1, 28, 28), by split and digit.

        Raises:
            MetaLearningError: the data set is missing, incomplete, or cannot be fetched.
        """
        try:
            train, test = (MNIST(self.folder, train=train, download=self.download) for train in (True, False))
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
