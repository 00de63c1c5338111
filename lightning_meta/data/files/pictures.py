"""Picture files of any kind, and how a picture becomes a network's input: the same at training and at use."""

from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lightning_meta.errors import MetaLearningError

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others would run programs, as EPS runs Ghostscript
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_SIDE = 4096  # pixels of an input, several times those of any network here
MAX_PIXELS = 50_000_000  # of a picture that is decoded: a file of a few kB can claim to hold terabytes
CONTRAST = 0.25  # a border darker than this is dark, one brighter than 1 - this is light


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the input of a network that was trained on such pictures; part of its checkpoint.

    Args:
        side: height and width of the input, in pixels. Drawings are padded to a square, photographs cropped to one.
        channels: 1 for grey, 3 for colours.
        resample: PIL's filter that shrinks the picture.
        background: brightness around what is drawn, 0 (black) to 1 (white), in the files that were trained on; None for
            photographs, whose borders differ.
        invert: whether the input has the opposite brightness, as where ink is 1 and paper 0.
        threshold: a pixel with more ink (the distance from the background) than this, in 0..1, is all ink and any other
            has none; None keeps grey.
        mean: of each channel, subtracted; None leaves values in 0..1.
        deviation: of each channel, divided by after that.

    Raises:
        MetaLearningError: a value makes no sense.
    """

    side: int
    channels: Literal[1, 3]
    resample: Resample = "bilinear"
    background: float | None = None
    invert: bool = False
    threshold: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not 1 <= self.side <= MAX_SIDE or self.channels not in (1, 3):
            raise MetaLearningError(
                f"pictures of side {self.side} with {self.channels} channels: expected 1 to {MAX_SIDE} pixels, "
                "and 1 or 3 channels"
            )
        if self.resample not in get_args(Resample):
            raise MetaLearningError(f"resample is {self.resample!r}, expected one of {', '.join(get_args(Resample))}")
        for name in ("background", "threshold"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise MetaLearningError(f"{name} is {value!r}, expected a number from 0 to 1, or None")
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if values is not None and not (
                isinstance(values, tuple)
                and len(values) == self.channels
                and all(isinstance(value, int | float) for value in values)
            ):
                raise MetaLearningError(
                    f"{name} is {values!r}, expected one number for each of {self.channels} channels"
                )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Preprocessing":
        """From what `plain` gave, also by way of JSON."""
        known = {field.name for field in fields(cls)}
        if not isinstance(plain, dict) or not {"side", "channels"} <= plain.keys() <= known:
            raise MetaLearningError(f"preprocessing is {plain!r:.100}, expected side, channels and what else is known")
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**settings)

    def plain(self) -> dict[str, Any]:
        """Numbers, strings and tuples of them, for a checkpoint."""
        return asdict(self)

    def is_reversed(self, picture: Image.Image) -> bool:
        """Whether a picture is light on dark where those trained on were dark on light, or the other way round."""
        if self.background is None:
            return False
        border = border_brightness(picture)
        return border < CONTRAST if self.background > 0.5 else border > 1 - CONTRAST

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """uint8 (channels, side, side) of a picture as `open_picture` gives it; a reversed one is turned round."""
        drawn = self.background is not None
        turned = drawn and self.is_reversed(picture)
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        picture = ImageOps.invert(picture) if turned else picture
        size = (self.side, self.side)
        if picture.width != picture.height and drawn:
            square, colour = max(picture.size), round(border_brightness(picture) * 255)
            picture = ImageOps.pad(picture, (square, square), color=(colour,) * self.channels)
        elif picture.width != picture.height:
            square = min(picture.size)
            left, top = (picture.width - square) // 2, (picture.height - square) // 2
            picture = picture.crop((left, top, left + square, top + square))
        values = np.asarray(picture.resize(size, Image.Resampling[self.resample.upper()]))
        values = values[None] if self.channels == 1 else values.transpose(2, 0, 1)
        if self.threshold is not None and self.background is not None:
            paper = 255 if self.background > 0.5 else 0
            ink = np.abs(values.astype(np.int16) - paper) > self.threshold * 255
            values = np.where(ink, 255 - paper, paper).astype(np.uint8)
        return np.ascontiguousarray(255 - values if self.invert else values)

    def inputs(self, pixels: Tensor) -> Tensor:
        """Floats (rows, channels, side, side) of uint8 pixels of that shape."""
        x = pixels.float().div_(255)
        if self.mean is not None and self.deviation is not None:
            mean, deviation = (torch.tensor(values)[:, None, None] for values in (self.mean, self.deviation))
            x.sub_(mean).div_(deviation)
        return x


def open_picture(source: Path | bytes, name: str | None = None, most_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture of any kind to ``L`` or ``RGB``: upright, its first frame, on white where it is transparent.

    Args:
        source: path or content of a file.
        name: what messages call it; the path by default.
        most_pixels: of a picture.

    Raises:
        MetaLearningError: it is not a picture, is damaged, not a regular file, or is larger than ``most_pixels``.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    if isinstance(source, Path) and source.exists() and not source.is_file():  # reading a pipe may never end
        raise MetaLearningError(f"{name} is not a regular file: expected a file such as {', '.join(SUFFIXES[3:6])}")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
            if picture.width * picture.height > most_pixels:
                raise Image.DecompressionBombError
            picture.seek(0)
            return as_grey_or_rgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning where those are errors
        raise MetaLearningError(f"{name} has more than {most_pixels:,} pixels: make it smaller") from None
    except FileNotFoundError:
        raise MetaLearningError(f"{name} does not exist") from None
    except Image.UnidentifiedImageError:
        raise MetaLearningError(
            f"{name} is not a picture: expected a file such as {', '.join(SUFFIXES[3:6])}"
        ) from None
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, its own bomb error and more
        raise MetaLearningError(f"{name} is not a readable picture ({error}): replace it or leave it out") from error


def as_grey_or_rgb(picture: Image.Image) -> Image.Image:
    """``L`` or ``RGB`` of any mode of PIL: 16 bits keep their scale, and transparency shows white."""
    if picture.mode in ("L", "RGB"):
        picture.load()
        if "transparency" not in picture.info:
            return picture.copy()
    if picture.mode.startswith("I") or picture.mode == "F":  # convert() would cut off values above 255
        values = np.asarray(picture, np.float64)
        top = 65535.0 if picture.mode.startswith("I") else 1.0
        top = max(top, values.max()) if values.size and np.isfinite(values).all() else top
        return Image.fromarray(np.nan_to_num(values / top * 255).clip(0, 255).round().astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def border_brightness(picture: Image.Image) -> float:
    """Median brightness along the edges, 0 (black) to 1 (white)."""
    grey = np.asarray(picture.convert("L"))
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))) / 255
