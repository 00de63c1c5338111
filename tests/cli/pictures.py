"""Folders of drawn pictures, whose classes are easy to tell apart."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 105
STROKES = {
    "cross": [((15, 15), (90, 90)), ((15, 90), (90, 15))],
    "line": [((52, 10), (52, 95))],
    "box": [((20, 20), (85, 20)), ((85, 20), (85, 85)), ((85, 85), (20, 85)), ((20, 85), (20, 20))],
}


def draw(name: str, shift: int = 0) -> Image.Image:
    """Black strokes on white, as Omniglot's."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    for (left, top), (right, bottom) in STROKES[name]:
        ImageDraw.Draw(picture).line((left + shift, top, right + shift, bottom), 0, 3)
    return picture


def class_folder(root: Path, names: Sequence[str] = tuple(STROKES), shifts: Sequence[int] = (0,)) -> Path:
    """``root/CLASS/SHIFT.png`` for every class and shift."""
    for name in names:
        root.joinpath(name).mkdir(parents=True)
        for shift in shifts:
            draw(name, shift).save(root / name / f"{shift}.png")
    return root
