"""Pictures of any kind, and that they become what the data sets hold."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lightning_meta.data.files.omniglot_cache import Rendering, cached_drawings
from lightning_meta.data.files.pictures import MAX_PIXELS, Preprocessing, open_picture
from lightning_meta.errors import MetaLearningError

DRAWING = Preprocessing(side=28, channels=1, resample="lanczos", background=1.0, invert=True)
PHOTOGRAPH = Preprocessing(side=8, channels=3)


def drawn(side: int = 105) -> Image.Image:
    """An L of ink on white paper."""
    pixels = np.full((side, side), 255, np.uint8)
    pixels[20:80, 30:34] = pixels[76:80, 30:70] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("ink", [0, 1])
@pytest.mark.parametrize(("resample", "threshold"), [("lanczos", None), ("nearest", None), ("bilinear", 0.4)])
def test_a_drawing_becomes_what_the_cache_of_omniglot_holds(
    tmp_path: Path, ink: int, resample: str, threshold: float | None
) -> None:
    drawn().convert("1").save(tmp_path / "a.png")
    rendering = Rendering(resample, threshold, ink)  # type: ignore[arg-type]
    cached = cached_drawings(tmp_path, ["a.png"], rendering, tmp_path / "cache")[0]
    preprocessing = Preprocessing(
        side=28, channels=1, resample=resample, threshold=threshold, background=1.0, invert=ink == 1
    )  # type: ignore[arg-type]
    assert (preprocessing.pixels(open_picture(tmp_path / "a.png")) == cached.numpy()).all()


def test_a_reversed_drawing_is_turned_round() -> None:
    dark, light = drawn(), ImageOps.invert(drawn())
    assert not DRAWING.is_reversed(dark)
    assert DRAWING.is_reversed(light)
    assert (DRAWING.pixels(dark) == DRAWING.pixels(light)).all()
    assert not PHOTOGRAPH.is_reversed(light)


def test_drawings_are_padded_and_photographs_cropped() -> None:
    wide = Image.new("L", (80, 40), 255)
    wide.putpixel((0, 20), 0)
    padded = Preprocessing(side=80, channels=1, background=1.0).pixels(wide)
    assert padded.shape == (1, 80, 80)
    assert np.argwhere(padded[0] == 0).tolist() == [[40, 0]]
    photograph = Image.fromarray(np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3))
    assert (PHOTOGRAPH.pixels(photograph) == np.asarray(photograph)[:, 4:12].transpose(2, 0, 1)).all()


def test_inputs_are_normalised() -> None:
    preprocessing = Preprocessing(side=2, channels=3, mean=(0.1, 0.2, 0.3), deviation=(0.5, 1, 2))
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = torch.tensor([1.8, 0.8, 0.35]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(preprocessing.inputs(pixels), expected)


def test_the_plain_form_survives_json() -> None:
    preprocessing = Preprocessing(side=2, channels=3, mean=(0.1, 0.2, 0.3), deviation=(0.5, 1, 2))
    assert Preprocessing.from_plain(json.loads(json.dumps(preprocessing.plain()))) == preprocessing


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize("kind", ["L", "16 bits", "palette", "alpha", "CMYK", "1", "animated", "float"])
def test_pictures_of_every_kind(tmp_path: Path, kind: str) -> None:
    picture, options = Image.fromarray(GREY), {}
    expected, suffix = GREY.astype(int), "png"
    if kind == "16 bits":
        picture = Image.fromarray(GREY.astype(np.uint16) * 257)
    elif kind == "palette":
        picture = picture.convert("P")
    elif kind == "alpha":
        picture = Image.merge("LA", [picture, Image.fromarray(np.where(GREY > 100, 255, 0).astype(np.uint8))])
        expected = np.where(GREY > 100, GREY, 255)
    elif kind == "CMYK":
        picture, suffix = picture.convert("RGB").convert("CMYK"), "tif"
    elif kind == "1":
        picture = Image.fromarray(np.where(GREY > 100, 255, 0).astype(np.uint8)).convert("1")
        expected = np.where(GREY > 100, 255, 0)
    elif kind == "animated":
        options, suffix = {"save_all": True, "append_images": [Image.new("L", (8, 8))]}, "webp"
        options["lossless"] = True
    elif kind == "float":
        picture, suffix = Image.fromarray(GREY.astype(np.float32) / 255), "tif"
    path = tmp_path / f"picture.{suffix}"
    picture.save(path, **options)
    assert np.abs(np.asarray(open_picture(path).convert("L")).astype(int) - expected).max() <= 1
    assert open_picture(path.read_bytes()).size == (8, 8)


def test_a_picture_that_was_taken_sideways_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    Image.fromarray(GREY[:4]).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(open_picture(tmp_path / "a.png")) == np.rot90(GREY[:4], -1)).all()


def bomb() -> bytes:
    """A PNG of a few bytes that claims 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is not a picture"),
        (b"", "is not a picture"),
        (bomb(), "has more than 50,000,000 pixels: make it smaller"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MetaLearningError, match=message) as error:
        open_picture(path)
    assert str(path) in str(error.value)


def test_a_large_and_a_truncated_picture_are_refused(tmp_path: Path) -> None:
    Image.new("1", (MAX_PIXELS // 4000, 4001)).save(tmp_path / "large.png")
    with pytest.raises(MetaLearningError, match="more than 50,000,000 pixels"):
        open_picture(tmp_path / "large.png")
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 90).save(whole)
    with pytest.raises(MetaLearningError, match=r"cut\.png is not a readable picture"):
        open_picture(whole.read_bytes()[:1000], "cut.png")


@pytest.mark.parametrize("settings", [{"side": 0, "channels": 1}, {"side": 8, "channels": 2}])
def test_settings_that_make_no_sense(settings: dict[str, int]) -> None:
    with pytest.raises(MetaLearningError, match="expected"):
        Preprocessing(**settings)  # type: ignore[arg-type]
    with pytest.raises(MetaLearningError, match="one number for each of 3 channels"):
        Preprocessing(side=8, channels=3, mean=(0.5,))
