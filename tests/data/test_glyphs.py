"""Drawn characters: repeatable, apart from class to class, alike and yet varied within one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_meta.data.drawing.images import ClassImages
from lightning_meta.data.glyphs import GlyphEpisodes


def glyphs(**changes: Any) -> GlyphEpisodes:
    """A small alphabet."""
    small = {"train_classes": 30, "validation_classes": 8, "test_classes": 12, "drawings": 6}
    return GlyphEpisodes(**(small | changes))


@pytest.fixture(scope="module")
def data() -> ClassImages:
    return glyphs().data


def by_class(data: ClassImages) -> Tensor:
    """Pixels in 0..1, (classes, drawings, 784)."""
    return data.images.flatten(1).unflatten(0, (len(data.starts), -1)).float() / 255


def test_images_are_ink_on_an_empty_ground(data: ClassImages) -> None:
    assert data.images.shape == (300, 1, 28, 28) and data.images.dtype == torch.uint8
    assert data.starts.tolist() == list(range(0, 300, 6)) and data.counts.tolist() == [6] * 50
    ink = by_class(data)
    assert ink.amax(-1).min() > 0.9 and ink.amin(-1).max() == 0
    assert ink.mean(-1).min() > 0.01 and ink.mean(-1).max() < 0.4
    assert ((ink > 0) & (ink < 1)).any(-1).all()  # smooth edges


def test_splits_share_no_class_and_leave_none_out(data: ClassImages) -> None:
    assert {split: len(classes) for split, classes in data.splits.items()} == {"test": 12, "validation": 8, "train": 30}
    assert torch.cat(list(data.splits.values())).sort().values.tolist() == list(range(50))


def test_images_depend_on_the_alphabet_alone(data: ClassImages) -> None:
    assert torch.equal(data.images, glyphs(seed=5, ways=3).data.images)
    assert not torch.equal(data.images, glyphs(alphabet=1).data.images)
    first = data.splits["test"].tolist() + data.splits["validation"].tolist()
    more = glyphs(train_classes=300).data  # several chunks
    assert torch.equal(by_class(more)[first], by_class(data)[first])


def test_no_two_drawings_are_the_same(data: ClassImages) -> None:
    assert len(data.images.flatten(1).unique(dim=0)) == len(data.images)


def test_drawings_of_a_class_are_closer_than_classes(data: ClassImages) -> None:
    pixels = by_class(data)
    within = torch.cdist(pixels, pixels).sum() / (50 * 6 * 5)
    between = torch.cdist(pixels[:, 0], pixels[:, 0]).sum() / (50 * 49)
    assert within < 0.95 * between


def test_tasks_are_neither_trivial_nor_hopeless_for_a_nearest_neighbour() -> None:
    episode = glyphs(test_classes=100, drawings=10).draw("test", torch.arange(500))
    nearest = torch.cdist(episode.query_x.flatten(2), episode.support_x.flatten(2)).argmin(-1)
    accuracy = (episode.support_y.gather(1, nearest) == episode.query_y).float().mean()
    assert 0.4 < accuracy < 0.75
