"""A tiny Omniglot, and images whose pixels say their class, their drawing and their turn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_meta.data import omniglot
from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes
from lightning_meta.data.files import omniglot_cache
from lightning_meta.data.omniglot import OmniglotEpisodes
from lightning_meta.episode import Episode, InnerBatches, Split
from tests.data.rgb_files import KINDS, Made, make

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASSES = {"train": torch.arange(3, 9), "validation": torch.arange(9, 14), "test": torch.tensor([0, 1, 2, 14, 15])}
COUNTS = 6 + torch.arange(16) % 3  # classes of 6, 7 and 8 images
MARK = 255  # in the lower right corner, unless turned


OMNIGLOT_SPLITS = {
    "train": ["images_background/Latin/character01", "images_evaluation/Angelic/character02"],
    "validation": [],
    "test": ["images_evaluation/Angelic/character01"],
}
CHARACTERS = sorted(name for names in OMNIGLOT_SPLITS.values() for name in names)
LINE = (30, 20, 70, 90)  # pixels, left top right bottom


def draw_characters(root: Path) -> None:
    """Three characters of 20 drawings, black on white as the data set's."""
    for number, character in enumerate(CHARACTERS):
        folder = root / "omniglot-py" / character
        folder.mkdir(parents=True)
        for drawing in range(20):
            image = Image.new("1", (105, 105), 1)
            ImageDraw.Draw(image).line([(x + drawing, y - drawing) for x, y in (LINE[:2], LINE[2:])], 0, 2 + number)
            image.save(folder / f"{number:04}_{drawing + 1:02}.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Omniglot, its split in the place of the shipped ones, and a user's cache folder of its own."""
    monkeypatch.setattr(omniglot, "read_splits", lambda name: OMNIGLOT_SPLITS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    draw_characters(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, one entry for each time that happened."""
    calls: list[int] = []
    decode = omniglot_cache._decode

    def counted(source: Path, files: list[str], rendering: omniglot_cache.Rendering) -> Tensor:
        calls.append(len(files))
        return decode(source, files, rendering)

    monkeypatch.setattr(omniglot_cache, "_decode", counted)
    return calls


def images(root: Path, **options: Any) -> Tensor:
    return OmniglotEpisodes(root=str(root), **options).load().images


def first_drawing(root: Path) -> Path:
    return root / "omniglot-py" / CHARACTERS[0] / "0000_01.png"


# Splits


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


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A data module's class and a folder with small files of its layout."""
    return make(request.param, tmp_path, monkeypatch)
