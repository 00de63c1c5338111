"""Images whose pixels say their class, their drawing and their turn."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes
from lightning_meta.episode import Episode, InnerBatches, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASSES = {"train": torch.arange(3, 9), "validation": torch.arange(9, 14), "test": torch.tensor([0, 1, 2, 14, 15])}
COUNTS = 6 + torch.arange(16) % 3  # classes of 6, 7 and 8 images
MARK = 255  # in the lower right corner, unless turned


class TinyEpisodes(ImageEpisodes):
    """Image [[class, drawing], [0, MARK]]."""

    def __init__(self, **changes: Any) -> None:
        given = {"ways": 3, "shots": 2, "queries": 3, "meta_batch_size": 4, "validation_tasks": 5, "test_tasks": 11}
        super().__init__(**(given | changes))
        self.connect(InnerBatches(steps=3, size=4), InnerBatches())

    def load(self) -> ClassImages:
        classes = torch.arange(16).repeat_interleave(COUNTS)
        starts = COUNTS.cumsum(0) - COUNTS
        drawings = torch.arange(len(classes)) - starts[classes]
        pixels = torch.stack([classes, drawings, torch.zeros_like(classes), torch.full_like(classes, MARK)], -1)
        return ClassImages(pixels.view(-1, 1, 2, 2).to(torch.uint8), starts, COUNTS, CLASSES)


def assert_same(left: Episode, right: Episode) -> None:
    for name, one, other in zip(Episode._fields, left, right, strict=True):
        assert torch.equal(one, other), name


def assert_uniform(counts: Tensor) -> None:
    """Chi-square within five standard deviations of what equal chances give."""
    expected = counts.sum().item() / counts.numel()
    freedom = counts.numel() - 1
    assert ((counts - expected) ** 2 / expected).sum().item() < freedom + 5 * (2 * freedom) ** 0.5


def on_rank(rank: int, ranks: int, max_steps: int = 3, **changes: Any) -> TinyEpisodes:
    """Data as one of several ranks has it, in a run of a few meta-steps."""
    data = TinyEpisodes(**changes)
    total = SimpleNamespace(processed=0)  # batches that the trainer has worked through
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
    trainer: Any = SimpleNamespace(
        global_rank=rank,
        world_size=ranks,
        max_steps=max_steps,
        accumulate_grad_batches=2,
        fit_loop=loop,
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    data.trainer = trainer
    return data
