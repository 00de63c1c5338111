"""Strokes become a picture that looks like Omniglot's: dark on light, as large, and as thick.

Omniglot's own strokes and pictures say how: a round brush of 5 pixels among 105 gives back the published picture, pixel
by pixel, but for the rounding of its edge, and the larger of a drawing's width and height is 67.6 pixels in the mean.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw

Stroke = Sequence[tuple[float, float]]

SIDE = 105  # pixels of Omniglot's pictures
BRUSH = 5.0  # pixels, the diameter of its brush
EXTENT = 62.5  # pixels between the outermost points of a drawing, the larger of width and height
LARGEST_SCALE = 4 * SIDE  # pixels for the side of a canvas: a dot stays a dot
OVERSAMPLING = 4  # subpixels along a pixel; more of them change no picture


def draw_like_omniglot(strokes: Sequence[Stroke]) -> Image.Image:
    """A drawing of any place and size, in the middle of a picture and as large as Omniglot's are in the mean.

    Args:
        strokes: points (x, y) of each stroke, in sides of the canvas, y downwards; at least one point.

    Returns:
        A picture of mode ``L``, 105 x 105 pixels, each 0 (ink) or 255 (paper).
    """
    return render(centred(strokes))


def centred(strokes: Sequence[Stroke]) -> list[list[tuple[float, float]]]:
    """The points in pixels of the picture: the middle of the drawing in its middle, the larger extent `EXTENT`."""
    columns, rows = zip(*(point for stroke in strokes for point in stroke), strict=True)
    left, right, top, bottom = min(columns), max(columns), min(rows), max(rows)
    extent = max(right - left, bottom - top)
    scale = min(EXTENT / extent, LARGEST_SCALE) if extent else 0.0
    return [
        [(SIDE / 2 + (x - (left + right) / 2) * scale, SIDE / 2 + (y - (top + bottom) / 2) * scale) for x, y in stroke]
        for stroke in strokes
    ]


def render(strokes: Sequence[Stroke]) -> Image.Image:
    """Strokes of a round brush.

    Args:
        strokes: points (x, y) in pixels, (0, 0) the upper left corner of the picture.

    Returns:
        A picture of mode ``L``, 105 x 105 pixels, each 0 (ink) or 255 (paper).
    """
    fine = Image.new("L", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING), 255)
    brush = ImageDraw.Draw(fine)
    radius = (BRUSH * OVERSAMPLING - 1) / 2  # PIL's circle holds both ends of its box
    for stroke in strokes:
        points = [(x * OVERSAMPLING - 0.5, y * OVERSAMPLING - 0.5) for x, y in stroke]
        brush.line(points, fill=0, width=round(BRUSH * OVERSAMPLING))
        for x, y in points:  # round ends and joints
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return fine.reduce(OVERSAMPLING).point(lambda value: 255 if value >= 128 else 0)
