"""MNIST: 70,000 handwritten digits, here as tasks for a learned optimizer.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE
1998
"""

from pathlib import Path

import torch
from torchvision.datasets import MNIST

from lightning_meta.data.drawing.images import CacheDevice, ClassImages, ImageEpisodes
from lightning_meta.errors import MetaLearningError

VALIDATION = 10000  # images at the end of the training set

CLASSES = 10


class MNISTEpisodes(ImageEpisodes):
    """Classification of digits, 28 x 28 pixels, one channel, in 0..1.

    All splits have the same ten classes, but images of their own: training tasks are drawn from the first 50,000 of the
    60,000 training images, validation tasks from the other 10,000 and test tasks from the 10,000 test images. A task is
    a training set for a network that starts anew: large ``shots`` make mini-batches of many images. Its labels are the
    digits in a random order.

    Args:
        root: folder that holds ``MNIST/raw``, as torchvision lays it out.
        ways: digits in a task.
        shots: support images of a digit.
        queries: query images of a digit.
        train_shots: support images of a digit in training; ``shots`` when None.
        train_queries: query images of a digit in training; ``queries`` when None. A learned optimizer needs none.
        download: fetch the data set with torchvision where it is not there.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test.
        seed: names the stream of tasks.
        num_workers: processes that draw ahead; 0 draws in the main process.
        cache_device: as in `ImageEpisodes`.
    """

    def __init__(
        self,
        root: str = "data",
        ways: int = 10,
        shots: int = 256,
        queries: int = 50,
        train_shots: int | None = None,
        train_queries: int | None = None,
        download: bool = False,
        meta_batch_size: int = 1,
        validation_tasks: int = 10,
        test_tasks: int = 100,
        seed: int = 0,
        num_workers: int = 0,
        cache_device: CacheDevice = "auto",
    ) -> None:
        super().__init__(
            ways, shots, queries, train_shots, train_queries, "none", meta_batch_size, validation_tasks, test_tasks,
            seed, num_workers, cache_device,
        )  # fmt: skip
        self.root = Path(root).expanduser()
        self.download = download

    def prepare_data(self) -> None:
        """Download in one process, before the ranks read."""
        self.load()

    def load(self) -> ClassImages:
        """All digits, uint8 (70000, 1, 28, 28), by split and digit.

        Raises:
            MetaLearningError: the data set is missing, not whole, or cannot be fetched.
        """
        try:
            train, test = (MNIST(self.root, train=train, download=self.download) for train in (True, False))
        except (RuntimeError, OSError, ValueError, AssertionError) as error:
            raise MetaLearningError(
                f"MNIST cannot be read in {self.root / 'MNIST' / 'raw'} ({error}): say which folder holds MNIST/raw "
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
            {
                name: torch.arange(CLASSES) + CLASSES * place
                for place, name in enumerate(("train", "validation", "test"))
            },
        )
