"""A tiny Omniglot: three characters of 20 drawings."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from lightning_meta.data.omniglot import OmniglotEpisodes

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


def images(root: Path, **options: Any) -> Tensor:
    return OmniglotEpisodes(root=str(root), **options).load().images


def first_drawing(root: Path) -> Path:
    return root / "omniglot-py" / CHARACTERS[0] / "0000_01.png"
