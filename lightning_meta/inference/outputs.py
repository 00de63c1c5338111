"""Files that a command writes: all of them or none, and refused before anything is computed."""

import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning_meta.errors import MetaLearningError


@contextmanager
def replaced_together(outputs: Mapping[str, Path], inputs: Collection[Path] = ()) -> Iterator[dict[str, Path]]:
    """Files to write, which take the places of those that were named once all are complete.

    Args:
        outputs: place of each file, by the option that named it.
        inputs: files that are read, which no output may replace.

    Yields:
        The file to write for each option, empty, beside its place and with the same suffix.

    Raises:
        MetaLearningError: a place cannot be written, is that of an input, or is named twice. Whatever is raised
            within, every file that was there before is still there, as it was.
    """
    read = {path.resolve() for path in inputs}
    partials: dict[str, Path] = {}
    places: dict[Path, str] = {}
    try:
        for option, path in outputs.items():
            place = path.resolve()
            if place in places:
                raise MetaLearningError(f"{option} and {places[place]} are both {path}: name two files")
            places[place] = option
            _check(option, path, read)
            partials[option] = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
            _touch(option, path, partials[option])
        yield dict(partials)
        for option, path in outputs.items():
            try:
                os.replace(partials[option], path)
            except OSError as error:
                raise _unwritable(option, path, error) from error
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def _check(option: str, path: Path, inputs: Collection[Path]) -> None:
    if path.resolve() in inputs:
        raise MetaLearningError(f"{option} is {path}, which is one of the pictures that are read: name another file")
    if path.is_dir():
        raise MetaLearningError(f"{option} is {path}, which is a folder: name a file")
    if not path.parent.is_dir():
        raise MetaLearningError(f"{option} is {path}, but there is no folder {path.parent}: create it first")
    if path.exists() and not os.access(path, os.W_OK):
        raise MetaLearningError(f"{option} is {path}, which is write-protected: name another file")


def _touch(option: str, path: Path, partial: Path) -> None:
    try:
        partial.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(option, path, error) from error


def _unwritable(option: str, path: Path, error: OSError) -> MetaLearningError:
    return MetaLearningError(
        f"{option} is {path}, which cannot be written ({error.strerror}): name a file in another folder"
    )
