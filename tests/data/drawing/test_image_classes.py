"""Which of the split's classes each label of a task is: seen in the images themselves."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import Split

COUNTS = {"train": 5, "validation": 4, "test": 6}


def glyphs(rotations: Any) -> GlyphEpisodes:
    return GlyphEpisodes(
        ways=3, shots=2, train_classes=5, validation_classes=4, test_classes=6, drawings=4, rotations=rotations
    )


def drawings(data: GlyphEpisodes) -> dict[bytes, tuple[int, int]]:
    """The character and the turn of every drawing as it may appear."""
    images = data.load().images
    return {
        image.rot90(turn, (-2, -1)).contiguous().numpy().tobytes(): (place // data.drawings, turn)
        for place, image in enumerate(images)
        for turn in range(4)
    }


def seen(known: dict[bytes, tuple[int, int]], images: Tensor) -> set[tuple[int, int]]:
    """Of which characters and turns these images of one class are."""
    return {known[image.mul(255).round().to(torch.uint8).numpy().tobytes()] for image in images}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("rotations", ["none", "classes", "tasks"])
def test_labels_share_a_number_where_character_and_turn_are_the_same(rotations: Any, split: Split) -> None:
    data = glyphs(rotations)
    known = drawings(data)
    assert len(known) == 15 * 4 * 4  # no drawing looks like another
    episode = data.draw(split, torch.arange(60))
    assert episode.classes.shape == (60, 3)
    assert episode.classes.dtype == torch.int64
    number_of: dict[tuple[int, int], int] = {}
    for task in range(60):
        x = torch.cat([episode.support_x[task], episode.query_x[task]])
        y = torch.cat([episode.support_y[task], episode.query_y[task]])
        for label, number in enumerate(episode.classes[task].tolist()):
            (what,) = seen(known, x[y == label])
            assert number_of.setdefault(what, number) == number
    assert len(set(number_of.values())) == len(number_of)
    turned = rotations == "tasks" or (rotations == "classes" and split == "train")
    assert len(number_of) == COUNTS[split] * (4 if turned else 1)
    assert sorted(number_of.values()) == list(range(len(number_of)))
    if split == "train":
        assert data.train_class_count == len(number_of)
