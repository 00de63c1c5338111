"""Files that a command writes into a folder, in the place of those that it wrote there before, touching no other."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from lightning_meta.errors import MetaLearningError

Write = Callable[[Path], object]


def replace_files(folder: Path, files: Mapping[str, Write], manifest: str, option: str) -> None:
    """Write all files, each in one step, and remove what an earlier call wrote and this one does not.

    Args:
        folder: where; it is made.
        files: by name, with ``/`` between folders: what writes a file to a path.
        manifest: name of the file that lists those that were written.
        option: where the folder comes from, for messages.

    Raises:
        MetaLearningError: a file of that name was written by somebody else; nothing is changed.
        OSError: the folder cannot be written.
        ValueError: the manifest is no text.
    """
    listed = folder / manifest
    own = set(listed.read_text(encoding="utf-8").split("\n")) if listed.exists() else set()
    taken = {name for name in files if name not in own and (folder / name).exists()}
    if foreign := sorted(taken | {name for name in files if not _is_below(folder, name)}):
        raise MetaLearningError(
            f"{option} is {folder}, where {foreign[0]} was not written by this command: name another folder, or move it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # A call that is cut short owns its files, too.
    listed.write_text("\n".join(sorted(own | files.keys())), encoding="utf-8")
    for name, write in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        write(partial)
        os.replace(partial, path)
    for name in own - files.keys():
        if name and _is_below(folder, name) and not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)
    listed.write_text("\n".join(sorted(files)), encoding="utf-8")


def _is_below(folder: Path, name: str) -> bool:
    """Whether a name in a manifest, which somebody may have changed, stays in the folder; a link may lead out of it."""
    path = PurePosixPath(name)
    inside = (folder / path.parent).resolve().is_relative_to(folder.resolve())
    return inside and not path.is_absolute() and ".." not in path.parts
