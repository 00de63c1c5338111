"""A contact sheet of predictions: every picture with its class and probability, as one PNG file."""

from collections.abc import Sequence
from io import BytesIO

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from lightning_meta.escaping import printable
from lightning_meta.inference.predictions import Predictions
from lightning_meta.inference.queries import THUMBNAIL

MOST = 300  # pictures on a sheet
COLUMNS = 8
MARGIN, LINE = 14, 17  # pixels
FRAME = 4  # pixels around a picture whose prediction is wrong
WRONG, INK, FAINT, PAPER = "#b00020", "#1a1a1a", "#5f6368", "white"


def contact_sheet(predictions: Predictions, thumbnails: Sequence[bytes], title: str) -> Image.Image:
    """Draw the first `MOST` pictures in a grid.

    Where truth is known, a wrong prediction has a cross, the true class and a frame, and a right one a check mark.

    Args:
        predictions: of all pictures.
        thumbnails: PNG files of the first pictures.
        title: first line of the sheet.
    """
    shown = min(len(thumbnails), len(predictions.files), MOST)
    columns = min(COLUMNS, max(shown, 4))
    cell = (THUMBNAIL + 2 * MARGIN, THUMBNAIL + 3 * LINE + 2 * MARGIN)
    head = [title, *([str(predictions.accuracy)] if predictions.accuracy else [])]
    if shown < len(predictions.files):
        head.append(f"the first {shown} of {len(predictions.files)} pictures")
    top = MARGIN + LINE * len(head)
    size = (columns * cell[0], top + -(-shown // columns) * cell[1] + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    regular, bold = (_font(weight) for weight in ("normal", "bold"))
    for number, line in enumerate(head):
        _write(draw, (MARGIN, MARGIN + number * LINE), line, bold if not number else regular, INK, size[0] - 2 * MARGIN)
    for place in range(shown):
        left = place % columns * cell[0] + MARGIN
        upper = top + place // columns * cell[1] + MARGIN
        with Image.open(BytesIO(thumbnails[place])) as picture:
            x, y = left + (THUMBNAIL - picture.width) // 2, upper + (THUMBNAIL - picture.height) // 2
            sheet.paste(picture, (x, y))
            corners = (x, y, x + picture.width - 1, y + picture.height - 1)
        predicted, truth = predictions.predicted[place], predictions.truth[place]
        wrong = truth is not None and truth != predicted
        if wrong:
            draw.rectangle([c + FRAME * (-1 if i < 2 else 1) for i, c in enumerate(corners)], None, WRONG, FRAME - 1)
        else:
            draw.rectangle([c + (-1 if i < 2 else 1) for i, c in enumerate(corners)], None, "#c0c4c8", 1)
        mark = "" if truth is None else "\u2717 " if wrong else "\u2713 "  # cross or check mark
        p = f"{100 * predictions.probabilities[place].max():.0f} %"
        lines = [(f"{mark}{predicted}", bold, WRONG if wrong else INK)]
        lines.append((f"{p}, is {truth}" if wrong else p, regular, WRONG if wrong else INK))
        lines.append((predictions.files[place].replace("\\", "/").rpartition("/")[2], regular, FAINT))
        for number, (text, font, colour) in enumerate(lines):
            _write(draw, (left, upper + THUMBNAIL + 4 + number * LINE), text, font, colour, THUMBNAIL + MARGIN)
    return sheet


def _font(weight: str) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib on every system, and has more alphabets than PIL's own."""
    return ImageFont.truetype(
        font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight)), 12
    )


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font: ImageFont.FreeTypeFont, colour: str, width: int
) -> None:
    """One line, cut off with an ellipsis where it would be wider."""
    text = printable(text)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(f"{text}\u2026", font) > width:
            text = text[:-1]
        text += "\u2026"
    draw.text(place, text, colour, font)
