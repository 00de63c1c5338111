"""Images whose pixels say their class, their drawing and their turn."""

from typing import Any

import torch

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
