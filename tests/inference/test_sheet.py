"""Predictions as tables, contact sheet and page: the arithmetic, the marks, and names that could do harm."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_meta.errors import MetaLearningError
from lightning_meta.inference.outputs import replaced_together
from lightning_meta.inference.page import html_page
from lightning_meta.inference.predictions import Predictions
from lightning_meta.inference.sheet import FRAME, WRONG, contact_sheet

HARMFUL = '<script>alert("1")</script>'


def predictions(files: int = 3) -> Predictions:
    """The first two right, the third wrong, and the others unknown."""
    p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]] + [[0.2, 0.3, 0.5]] * (files - 3))
    names = [f"folder/{HARMFUL}{number}.png" for number in range(files)]
    truth = ["a", HARMFUL, HARMFUL] + [None] * (files - 3)
    return Predictions(names, truth, ["a", HARMFUL, "c"], p, {"notes": [HARMFUL]})


def thumbnail(colour: str = "white") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (112, 80), colour).save(stream, "PNG")
    return stream.getvalue()


def wilson(right: int, known: int) -> tuple[float, float]:
    """Wilson (1927): the roots of (p - share)^2 = z^2 p (1 - p) / known."""
    z2 = 1.959963984540054**2
    share = right / known
    roots = np.roots([1 + z2 / known, -2 * share - z2 / known, share**2])
    return float(roots.min()), float(roots.max())


def test_entropy_accuracy_and_confusion() -> None:
    found = predictions(5)
    assert found.predicted == ["a", HARMFUL, "a", "c", "c"]
    np.testing.assert_allclose(found.entropy[:3], [1.5, 0, 0], atol=1e-12)
    assert found.accuracy is not None
    assert (found.accuracy.right, found.accuracy.known) == (2, 3)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx(wilson(2, 3), abs=1e-9)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_tables_hold_every_picture() -> None:
    found = predictions(30)
    rows = list(csv.DictReader(io.StringIO(found.csv(), newline="")))
    assert [row["file"] for row in rows] == list(found.files)
    assert [row["true_class"] for row in rows[:4]] == ["a", HARMFUL, HARMFUL, ""]
    whole = json.loads(found.json())
    assert whole["predictions"][0]["probabilities"] == {"a": 0.5, HARMFUL: 0.25, "c": 0.25}
    assert len(whole["predictions"]) == 30
    assert "... and 10 more" in found.screen()


def test_a_name_cannot_move_the_cursor() -> None:
    found = Predictions(["\x1b[2J\n.png"], [None], ["a", "b"], np.array([[1.0, 0.0]]), {})
    assert "\x1b" not in found.screen()
    assert len(found.screen().splitlines()) == 2


def test_the_wrong_one_has_a_frame_on_the_sheet() -> None:
    sheet = contact_sheet(predictions(), [thumbnail()] * 3, "title")
    pixels = np.asarray(sheet)
    red = (pixels == [int(WRONG[place : place + 2], 16) for place in (1, 3, 5)]).all(-1)
    rows, columns = np.nonzero(red)
    assert np.ptp(columns[red[rows].sum(1) > 100]) == 112 + 2 * FRAME - 1  # a frame as wide as one picture
    assert columns.min() > sheet.width / 4 * 2 - 1  # in the third of four columns


class Reader(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_escaped_and_needs_no_other_file() -> None:
    page = Reader(html_page(predictions(), [thumbnail()] * 3, HARMFUL))
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "link" not in names
    assert page.text.count(HARMFUL) > 5
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 3
    assert all(str(picture["src"]).startswith("data:image/png;base64,") and picture["alt"] for picture in pictures)
    assert page.text.count("wrong, is") == 1
    assert page.text.count("\u2713 ") == 2
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "li"] == [None, None, "wrong"]


def test_many_pictures_are_cut_off_and_counted() -> None:
    found = predictions(8)
    assert "The first 5 of 8 pictures." in html_page(found, [thumbnail()] * 5, "title")
    assert contact_sheet(found, [thumbnail()] * 5, "t").height == contact_sheet(found, [thumbnail()] * 6, "t").height


def test_a_failure_leaves_every_earlier_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("results")

    def fail() -> None:
        with replaced_together({"--out": old, "--html": new}) as partials:
            partials["--out"].write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert old.read_text() == "results"
    with replaced_together({"--out": old, "--html": new}) as partials:
        assert {path.suffix for path in partials.values()} == {".csv"}
        for path in partials.values():
            path.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.csv": "whole", "new.csv": "whole"}


def test_one_file_cannot_be_two(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    with (
        pytest.raises(MetaLearningError, match="--html and --out are both"),
        replaced_together({"--out": path, "--html": tmp_path / "." / "a.html"}),
    ):
        pass
