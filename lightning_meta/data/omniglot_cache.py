"""Drawings decoded once: 32,460 small files take seconds to open, one cache file a fraction of one."""

import hashlib
import os
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_meta.errors import MetaLearningError

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

SIDE = 28  # pixels


class Rendering(NamedTuple):
    """How a black-on-white drawing becomes a small image."""

    resample: Resample  # PIL's filter
    threshold: float | None  # a pixel with more ink than this, in 0..1, is all ink and any other has none; None: grey
    ink: Literal[0, 1]  # value of ink; the background has the other

    @property
    def file_name(self) -> str:
        """Name of the cache file of images made so."""
        tone = "grey" if self.threshold is None else f"above{self.threshold}"
        return f"omniglot{SIDE}-{self.resample}-{tone}-ink{self.ink}.pt"


def cached_images(source: Path, files: Sequence[str], rendering: Rendering, cache_dir: Path) -> Tensor:
    """The images of these files, from a cache that fits or decoded and then cached.

    Where ``cache_dir`` cannot be written, the cache is in ``$XDG_CACHE_HOME/lightning_meta`` or
    ``~/.cache/lightning_meta``; where that cannot be either, there is none.

    Args:
        source: folder of the files.
        files: their paths in that folder.
        rendering: how to decode them.
        cache_dir: folder of the cache.

    Returns:
        uint8 (files, 1, 28, 28).

    Raises:
        MetaLearningError: a file is no readable image.
    """
    fingerprint = _fingerprint(source, files, rendering)
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    paths = [folder / rendering.file_name for folder in (cache_dir, user_cache / "lightning_meta")]
    for path in paths:
        images = _read(path, fingerprint)
        if images is not None:
            return images
    images = _decode(source, files, rendering)
    cache = {"fingerprint": fingerprint, "checksum": zlib.crc32(images.numpy().tobytes()), "images": images}
    for path in paths:
        try:
            _write(path, cache)
        except OSError as error:
            rank_zero_info(f"Omniglot: no cache in {path.parent} ({error})")
        else:
            rank_zero_info(f"Omniglot: decoded images are cached in {path}")
            break
    return images


def _fingerprint(source: Path, files: Sequence[str], rendering: Rendering) -> str:
    digest = hashlib.sha256(repr((SIDE, *rendering)).encode())
    for file in files:
        status = os.stat(source / file)
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(path: Path, fingerprint: str) -> Tensor | None:
    """The cached images, or None where there are none of this fingerprint."""
    try:
        cache = torch.load(path, weights_only=True)
        if cache["fingerprint"] != fingerprint:
            return None
        images: Tensor = cache["images"]
        if cache["checksum"] != zlib.crc32(images.numpy().tobytes()):  # torch.load verifies none of its own
            raise ValueError("wrong checksum")
        return images
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file fails in many ways, and all have the same remedy
        rank_zero_info(f"Omniglot: the cache {path} cannot be used and is made anew ({type(error).__name__}: {error})")
        return None


def _write(path: Path, cache: dict[str, object]) -> None:
    """Put the whole file into its place at once, whoever else is reading or writing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as stream:  # torch.save into a path of its own would not raise OSError
            torch.save(cache, stream)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _decode(source: Path, files: Sequence[str], rendering: Rendering) -> Tensor:
    resample = Image.Resampling[rendering.resample.upper()]
    pixels = bytearray()
    for file in files:  # threads do not help: the images are too small
        try:
            with Image.open(source / file) as image:
                pixels += image.convert("L").resize((SIDE, SIDE), resample).tobytes()
        except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and more for a damaged file
            raise MetaLearningError(
                f"{source / file} is no readable image ({error}): delete its folder and fetch Omniglot anew with "
                "--data.download true"
            ) from error
    ink = 255 - torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 1, SIDE, SIDE)
    if rendering.threshold is not None:
        ink = (ink > rendering.threshold * 255).to(torch.uint8) * 255
    return ink if rendering.ink else 255 - ink
