"""Images decoded once: many small files take seconds to open, one cache file a fraction of one.

A cache file is the bytes of the images, then what is known of them as JSON, then that text's length and checksum. It is
written piece by piece, so that a set larger than the main memory fits, and such a set is read through a memory map.
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

MAPPED = 2**30  # bytes; larger sets stay on the disk, and their checksum, which would take seconds, is not compared

_END = struct.Struct("<QI")  # length and CRC-32 of the JSON text

Write: TypeAlias = Callable[[np.ndarray], None]  # takes the next images, uint8 (images, channels, height, width)


class CachedImages(NamedTuple):
    """Images and what was noted while they were decoded."""

    images: Tensor  # uint8 (images, channels, height, width)
    facts: dict[str, Any]  # as JSON has it


def cached_images(
    title: str, file_name: str, fingerprint: str, decode: Callable[[Write], dict[str, Any]], cache_dir: Path
) -> CachedImages:
    """The images from a cache that fits, or decoded and then cached.

    Where ``cache_dir`` cannot be written, the cache is in ``$XDG_CACHE_HOME/lightning_meta`` or
    ``~/.cache/lightning_meta``; where that cannot be either, there is none.

    Args:
        title: the data set, for messages.
        file_name: of the cache.
        fingerprint: names what the images are made of and how; a cache with another one does not fit.
        decode: hands all images to the function that it is given, piece by piece, and returns the facts.
        cache_dir: folder of the cache.

    Raises:
        MetaLearningError: there is no room for a cache of a set larger than `MAPPED`, or what ``decode`` raises.
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
    """Names these files, paths in ``root``, as they are now, and the settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        status = os.stat(os.path.join(root, file))
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(title: str, path: Path, fingerprint: str) -> CachedImages | None:
    """The cached images, or None where there are none of this fingerprint."""
    try:
        return _open(path, fingerprint)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file fails in many ways, and all have the same remedy
        rank_zero_info(f"{title}: the cache {path} cannot be used and is made anew ({type(error).__name__}: {error})")
        return None


def _open(path: Path, fingerprint: str) -> CachedImages | None:
    with path.open("rb") as stream:
        end = stream.seek(-_END.size, os.SEEK_END)
        length, checksum = _END.unpack(stream.read())
        if length > end:
            raise ValueError("not whole")
        stream.seek(end - length)
        text = stream.read(length)
        if zlib.crc32(text) != checksum:
            raise ValueError("wrong checksum")
        about = json.loads(text)
        if about["fingerprint"] != fingerprint:
            return None
        if np.prod(about["shape"]) != end - length:
            raise ValueError("not whole")
        if end - length > MAPPED:
            # "c" is private to this process and writable, which torch wants to see
            pixels: np.ndarray = np.memmap(path, np.uint8, "c", shape=tuple(about["shape"]))
        else:
            stream.seek(0)
            pixels = np.fromfile(stream, np.uint8, end - length).reshape(about["shape"])
            if zlib.crc32(pixels.data) != about["checksum"]:
                raise ValueError("wrong checksum")
    return CachedImages(torch.from_numpy(pixels), about["facts"])


def _write(path: Path, fingerprint: str, decode: Callable[[Write], dict[str, Any]]) -> CachedImages:
    """Put the whole file into its place at once, whoever else is reading or writing it."""
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
            stream.write(text + _END.pack(len(text), zlib.crc32(text)))
            stream.flush()
            os.fsync(stream.fileno())  # before the name is there, since the images of large sets are not checked
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
        if sum(piece.nbytes for piece in pieces) > MAPPED:
            raise MetaLearningError(
                f"{title} needs a file for its decoded images, and neither {paths[0].parent} nor {paths[1].parent} "
                "can hold it: name a folder that is writable and has room with --data.cache_dir DIR"
            )

    facts = decode(keep)
    return CachedImages(torch.from_numpy(np.concatenate(pieces)), facts)
