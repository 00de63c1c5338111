"""Strokes against Omniglot's own pictures of them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_meta.demo.drawing import SIDE, Stroke, draw_like_omniglot, render

# Omniglot (Lake et al., Science 2015, MIT licence), Latin/character09, the first drawer's i: the points and the picture
# that were published.
STROKES = [
    [(53.8, 40.9), (54.8, 40.9), (54.8, 44.9), (54.8, 48.9), (54.8, 52.9), (54.8, 56.9), (54.8, 64.9), (54.8, 76.9)],
    [(60.8, 13.9)],
]
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAGkAAABpAQAAAAAR+TCXAAAAN0lEQVR42mP8z4AEGpkYUMDg5j6knlHyQ8G/Q4H7sQGv4gMkGMUxGrCjXBiXxQFCMw7h"
    "8moIcwEfZwdOJcObbwAAAABJRU5ErkJggg=="
)
LETTER = [[(0.2, 0.9), (0.5, 0.1), (0.8, 0.9)], [(0.3, 0.6), (0.7, 0.6)]]


def ink(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L")) < 128


def overlap(drawn: np.ndarray, published: np.ndarray) -> float:
    """Pixels of ink in both over those in either."""
    return float((drawn & published).sum() / (drawn | published).sum())


def at_pixel_centres(strokes: list[Stroke]) -> list[Stroke]:
    """Omniglot's coordinates count pixels, from 0."""
    return [[(x + 0.5, y + 0.5) for x, y in stroke] for stroke in strokes]


def moved(strokes: list[Stroke], by: float, scale: float) -> list[Stroke]:
    return [[(by + scale * x, by + scale * y) for x, y in stroke] for stroke in strokes]


def box(drawn: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(drawn)
    return int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())


def test_a_drawing_of_omniglot_becomes_its_published_picture() -> None:
    published = ink(Image.open(io.BytesIO(base64.b64decode(PICTURE))))
    assert overlap(ink(render(at_pixel_centres(STROKES))), published) > 0.95


def test_drawings_of_omniglot_become_their_published_pictures(omniglot_root: Path) -> None:
    folder = omniglot_root / "omniglot-py"
    files = sorted(folder.glob("strokes_background_small1/*/*/*.txt"))[::40]
    if not files:
        pytest.skip("the real data are not in the repository: LIGHTNING_META_ROOT has no strokes")
    overlaps, amounts = [], []
    for file in files:
        strokes: list[Stroke] = []
        for line in file.read_text().split():
            if line in ("START", "BREAK"):
                strokes.append([])
            else:
                x, y, _ = map(float, line.split(","))
                strokes[-1].append((x, -y))
        drawn = ink(render(at_pixel_centres([stroke for stroke in strokes if stroke])))
        picture = file.relative_to(folder / "strokes_background_small1").with_suffix(".png")
        published = ink(Image.open(folder / "images_background" / picture))
        overlaps.append(overlap(drawn, published))
        amounts.append(drawn.sum() / published.sum())
    assert np.mean(overlaps) > 0.92
    assert np.mean(amounts) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("by", "scale"), [(0.0, 1.0), (0.7, 0.25), (-0.3, 0.5), (0.1, 2.0)])
def test_place_and_size_on_the_canvas_do_not_matter(by: float, scale: float) -> None:
    assert overlap(ink(draw_like_omniglot(moved(LETTER, by, scale))), ink(draw_like_omniglot(LETTER))) > 0.98


def test_a_drawing_fills_the_middle_as_omniglot_does() -> None:
    left, right, top, bottom = box(ink(draw_like_omniglot(LETTER)))
    assert bottom - top + 1 == pytest.approx(67.6, abs=1)  # the mean of the 19,280 drawings of images_background
    assert left + right == pytest.approx(SIDE - 1, abs=1)
    assert top + bottom == pytest.approx(SIDE - 1, abs=1)
    assert (right - left) / (bottom - top) == pytest.approx((62.5 * 0.6 / 0.8 + 5) / (62.5 + 5), abs=0.02)


def test_ink_is_dark_and_has_no_grey() -> None:
    picture = draw_like_omniglot(LETTER)
    assert picture.mode == "L"
    assert picture.size == (105, 105)
    assert set(np.unique(np.asarray(picture))) == {0, 255}
    assert picture.getpixel((0, 0)) == 255


def test_a_dot_stays_a_dot() -> None:
    for strokes in ([[(0.9, 0.9)]], [[(0.9, 0.9), (0.9, 0.901)]]):
        left, right, top, bottom = box(ink(draw_like_omniglot(strokes)))
        assert right - left + 1 == pytest.approx(5, abs=1)
        assert bottom - top + 1 == pytest.approx(5, abs=1)
        assert left <= 52 <= right
        assert top <= 52 <= bottom
