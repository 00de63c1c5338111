"""Checkpoint files: replaced in one step, with their SHA-256 at the end, and read only where no byte has changed.

A checkpoint is the zip archive that ``torch.save`` writes. The checksum is the archive's comment, which any reader of
such archives skips: the file stays one that ``torch.load`` reads.
"""

import hashlib
import io
import mmap
import os
import pickle
import stat
import struct
import time
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lightning_meta import learner_file
from lightning_meta.errors import MetaLearningError

_MARK = b"sha256:"
_DIGEST = 64  # hexadecimal digits
_ARCHIVE, _END = b"PK", b"PK\x05\x06"  # with which a zip archive and its last record begin
_END_SIZE = 22  # bytes of the last record of an archive without comment; its last two are the comment's length
_ABANDONED = 3600.0  # seconds after which a half-written file belongs to a process that was killed
_TYPES: dict[str, type] = {
    "state_dict": dict, "pytorch-lightning_version": str, "global_step": int, "hyper_parameters": dict, "loops": dict,
    "callbacks": dict, "optimizer_states": list, "lr_schedulers": list, "not_plain": list, "method": str,
}  # fmt: skip
_NEEDED = ("state_dict", "pytorch-lightning_version")


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its checksum: under its name there is the earlier file or this one, never a part of it.

    Args:
        checkpoint: what ``torch.save`` takes.
        path: of the file, whose folder is made where there is none.

    Raises:
        MetaLearningError: the disk is full, or does not take the file for another reason; the earlier file is whole.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # on the disk of the file itself
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            with partial.open("wb") as file:
                file.write(_with_checksum(checkpoint))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        kept = "; the checkpoint that was there before is whole" if path.exists() else ""
        raise MetaLearningError(
            f"the checkpoint {path} cannot be written: {error.strerror or error}{kept}. Make room or permit it, and "
            "go on from the last checkpoint with --ckpt_path"
        ) from error


def read(path: str | Path, weights_only: bool = True, **settings: Any) -> dict[str, Any]:
    """What a checkpoint of a run holds, or a learner file as one.

    Args:
        path: of the file.
        weights_only: whether the file may hold nothing but tensors and plain values, so that it cannot run code.
        **settings: of ``torch.load``, such as ``mmap``.

    Raises:
        MetaLearningError: there is no such file, it is damaged, or it holds something else.
    """
    verify(path)
    is_learner = Path(path).suffix == learner_file.SUFFIX
    checkpoint = learner_file.read(Path(path)) if is_learner else _unpickled(path, weights_only, settings)
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in _NEEDED):
        raise _unreadable(path, "it holds no run of Lightning. Give a .ckpt file that a fit has saved")
    for name, kind in _TYPES.items():
        if not isinstance(checkpoint.get(name, kind()), kind):
            raise _unreadable(path, f"its {name} is a {type(checkpoint[name]).__name__}, expected a {kind.__name__}")
    return checkpoint


def verify(path: str | Path) -> None:
    """Refuse a file whose bytes are not those that were written.

    Files without a checksum, as other programs write them, are compared with the checksums of the archive's parts.

    Raises:
        MetaLearningError: there is no such file, it is not a regular file, or damaged.
    """
    try:
        mode = os.stat(path).st_mode  # before it is opened: opening a pipe would wait for who writes to it
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise _unreadable(path, f"it is {kind}, expected a file")
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise _unreadable(path, "it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                sound = Path(path).suffix == learner_file.SUFFIX or _is_sound(file, content)
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(path, str(getattr(error, "strerror", None) or error)) from error
    if not sound:
        raise _unreadable(path, "it is damaged: its bytes have changed since it was written. Use another checkpoint")


def _unpickled(path: str | Path, weights_only: bool, settings: dict[str, Any]) -> Any:
    try:
        return torch.load(path, **({"map_location": "cpu"} | settings), weights_only=weights_only)
    except pickle.UnpicklingError as error:
        said = "it is damaged, or of another kind"
        if _names_globals(error):
            said = "it holds objects whose loading runs code. Set weights_only to false if you trust who made it"
        raise _unreadable(path, said) from error
    except Exception as error:  # a damaged file fails in many ways
        raise _unreadable(path, f"it is damaged, or of another kind ({type(error).__name__})") from error


def _with_checksum(checkpoint: dict[str, Any]) -> memoryview:
    """The archive, with the checksum of all bytes before it as the end of its comment."""
    archive = io.BytesIO()
    torch.save(checkpoint, archive)
    archive.seek(-2, os.SEEK_END)
    archive.write(struct.pack("<H", len(_MARK) + _DIGEST) + _MARK)
    archive.write(hashlib.sha256(archive.getbuffer()).hexdigest().encode())
    return archive.getbuffer()


def _is_sound(file: BinaryIO, content: mmap.mmap) -> bool:
    """Whether the checksum is that of the content; where there is none, whether the parts are whole."""
    end = len(content) - _DIGEST
    if content[max(end - len(_MARK), 0) : max(end, 0)] == _MARK:
        with memoryview(content) as view, view[:end] as before:
            return hashlib.sha256(before).hexdigest().encode() == content[end:]
    if content[: len(_ARCHIVE)] != _ARCHIVE:
        return True  # no archive: torch.load says what it makes of it
    last = content[-_END_SIZE:]
    if last[: len(_END)] != _END or last[-2:] != b"\0\0":  # cut, or its checksum has lost its mark
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError):
        return False


def _names_globals(error: Exception) -> bool:
    """Whether it was not damage, but a class or function, that ``weights_only`` refused."""
    return "GLOBAL" in str(error) or "Unsupported class" in str(error)


def _unreadable(path: str | Path, why: str) -> MetaLearningError:
    return MetaLearningError(f"{path} cannot be read as a checkpoint: {why}")


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of the same file."""
    for left in path.parent.glob(f"{path.name}.*.partial"):
        if time.time() - left.stat().st_mtime > _ABANDONED:
            left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the new name outlive a loss of power, where the system can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
