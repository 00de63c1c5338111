"""A cache of Omniglot's 32,460 drawings as small images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lightning_meta.data.files.image_cache import Write, cached_images, fingerprint
from lightning_meta.data.files.pictures import Resample
from lightning_meta.errors import MetaLearningError

SIDE = 28  # pixels


class Rendering(NamedTuple):
    """How a black-on-white drawing becomes a small image."""

    resample: Resample  # PIL's filter
    threshold: float | None  # a pixel with more ink than this, in 0..1, is all ink and any other has none; None: grey
    ink: Literal[0, 1]  # value of ink; the background has the other

    @property
    def file_name(self) -> str:
        """Name of the cache file of images rendered like this."""
        tone = "grey" if self.threshold is None else f"above{self.threshold}"
        return f"omniglot{SIDE}-{self.resample}-{tone}-ink{self.ink}.images"


def cached_drawings(source: Path, files: Sequence[str], rendering: Rendering, cache_dir: Path) -> Tensor:
    """The images of these files, from a matching cache or decoded and then cached, as in `cached_images`.

    Args:
        source: folder of the files.
        files: their paths, relative to that folder.
        rendering: how to decode them.
        cache_dir: folder of the cache.

    Returns:
        uint8 (files, 1, 28, 28).

    Raises:
        MetaLearningError: a file is not a readable image.
    """

    def decode(write: Write) -> dict[str, Any]:
        write(_decode(source, files, rendering).numpy())
        return {}

    made_of = fingerprint(source, files, SIDE, *rendering)
    return cached_images("Omniglot", rendering.file_name, made_of, decode, cache_dir).images


def _decode(source: Path, files: Sequence[str], rendering: Rendering) -> Tensor:
    resample = Image.Resampling[rendering.resample.upper()]
    pixels = bytearray()
    for file in files:  # threads do not help: the images are too small
        try:
            with Image.open(source / file) as image:
                pixels += image.convert("L").resize((SIDE, SIDE), resample).tobytes()
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and more for a damaged file
            raise MetaLearningError(
                f"{source / file} is not a readable image ({error}): delete its folder and download Omniglot again "
                "with --data.download true"
            ) from error
    ink = 255 - torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 1, SIDE, SIDE)
    if rendering.threshold is not None:
        ink = (ink > rendering.threshold * 255).to(torch.uint8) * 255
    return ink if rendering.ink else 255 - ink
