"""A cache of decoded images: opening many small files takes seconds, one cache file a fraction of a second.

A cache file holds the bytes of the images, a description of them as JSON, and the length and checksum of that text. It
is written piece by piece, so that a set may be larger than the main memory; large sets are read through a memory map.
"""

import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_meta.errors import MetaLearningError

CACHE_FOLDER = "lightning_meta_cache"  # in the folder of a data set
MAX_IN_MEMORY = 2**30  # bytes; larger sets stay on disk, and their checksum is not compared, which would take seconds

_TRAILER = struct.Struct("<QI")  # length and CRC-32 of the JSON text

Write: TypeAlias = Callable[[np.ndarray], None]  # takes the next images, uint8 (images, channels, height, width)


class CachedImages(NamedTuple):
    """Decoded images and the facts recorded while decoding them."""

    images: Tensor  # uint8 (images, channels, height, width)
    facts: dict[str, Any]  # as JSON has it


def cached_images(
    title: str, file_name: str, fingerprint: str, decode: Callable[[Write], dict[str, Any]], cache_dir: Path
) -> CachedImages:
    """The images from a matching cache, or decoded and then cached.

    Where ``cache_dir`` cannot be written, the cache is in ``$XDG_CACHE_HOME/lightning_meta`` or
    ``~/.cache/lightning_meta``; where that cannot be written either, nothing is cached.

    Args:
        title: the data set, for messages.
        file_name: of the cache.
        fingerprint: identifies the source files and how they are decoded; a cache with another one does not match.
        decode: passes all images, piece by piece, to its argument and returns the facts.
        cache_dir: folder of the cache.

    Raises:
        MetaLearningError: there is no room for a cache of a set larger than `MAX_IN_MEMORY`, or what ``decode`` raises.
    """
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    paths = [folder / file_name for folder in (cache_dir, user_cache / "lightning_meta")]
    for path in paths:
        cached = _read(title, path, fingerprint)
        if cached is not None:
            return cached
    for path in paths:
        try:
            cached = _write(path, fingerprint, decode)
        except OSError as error:
            rank_zero_info(f"{title}: no cache in {path.parent} ({error})")
        else:
            rank_zero_info(f"{title}: decoded images are cached in {path}")
            return cached
    return _in_memory(title, paths, decode)


def fingerprint(root: Path, files: Iterable[str], *settings: object) -> str:
    """A hash of these files, paths relative to ``root``, in their present state, and of the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        try:
            status = os.stat(os.path.join(root, file))
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError as error:  # a link that leads nowhere
            state = str(error.errno)
        digest.update(f"{file}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read(title: str, path: Path, fingerprint: str) -> CachedImages | None:
    """The cached images, or None where no cache has this fingerprint."""
    try:
        return _open(path, fingerprint)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file fails in many ways, and all have the same remedy
        rank_zero_info(f"{title}: the cache {path} cannot be used and is made again ({type(error).__name__}: {error})")
        return None


def _open(path: Path, fingerprint: str) -> CachedImages | None:
    with path.open("rb") as stream:
        end = stream.seek(-_TRAILER.size, os.SEEK_END)
        length, checksum = _TRAILER.unpack(stream.read())
        if length > end:
            raise ValueError("incomplete")
        stream.seek(end - length)
        text = stream.read(length)
        if zlib.crc32(text) != checksum:
            raise ValueError("wrong checksum")
        about = json.loads(text)
        if about["fingerprint"] != fingerprint:
            return None
        if np.prod(about["shape"]) != end - length:
            raise ValueError("incomplete")
        if end - length > MAX_IN_MEMORY:
            # "c" is private to this process and writable, which torch wants to see
            pixels: np.ndarray = np.memmap(path, np.uint8, "c", shape=tuple(about["shape"]))
        else:
            stream.seek(0)
            pixels = np.fromfile(stream, np.uint8, end - length).reshape(about["shape"])
            if zlib.crc32(pixels.data) != about["checksum"]:
                raise ValueError("wrong checksum")
    return CachedImages(torch.from_numpy(pixels), about["facts"])


def _write(path: Path, fingerprint: str, decode: Callable[[Write], dict[str, Any]]) -> CachedImages:
    """Write the file and put it in place at once, safely beside other readers and writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    about: dict[str, Any] = {"fingerprint": fingerprint, "shape": [0], "checksum": 0}
    try:
        with partial.open("xb") as stream:

            def write(images: np.ndarray) -> None:
                images = np.ascontiguousarray(images)
                stream.write(images.data)
                about["shape"] = [about["shape"][0] + len(images), *images.shape[1:]]
                about["checksum"] = zlib.crc32(images.data, about["checksum"])

            about["facts"] = decode(write)
            text = json.dumps(about).encode()
            stream.write(text + _TRAILER.pack(len(text), zlib.crc32(text)))
            stream.flush()
            os.fsync(stream.fileno())  # before it has its name, since the images of large sets are not checked
        cached = _open(partial, fingerprint)
        assert cached is not None
        partial.replace(path)
        return cached
    finally:
        partial.unlink(missing_ok=True)


def _in_memory(title: str, paths: list[Path], decode: Callable[[Write], dict[str, Any]]) -> CachedImages:
    pieces: list[np.ndarray] = []

    def keep(images: np.ndarray) -> None:
        pieces.append(images)
        if sum(piece.nbytes for piece in pieces) > MAX_IN_MEMORY:
            raise MetaLearningError(
                f"{title} needs a file for its decoded images, and neither {paths[0].parent} nor {paths[1].parent} "
                "can hold it: name a folder that is writable and has room with --data.cache_dir DIR"
            )

    facts = decode(keep)
    return CachedImages(torch.from_numpy(np.concatenate(pieces)), facts)
