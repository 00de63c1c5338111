"""The page as a folder of files that any web server can host: learners adapt inside the browser."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_meta.errors import MetaLearningError
from lightning_meta.owned_files import Write, replace_files

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PAGE = files("lightning_meta.demo") / "page"
MANIFEST = ".lightning-meta-demo"  # names of the files that were written, so that the next time may replace them
SERVER, LOCAL = b'<meta name="engine" content="server"', b'<meta name="engine" content="local"'


def write_static(folder: Path, checkpoints: Mapping[str, Path], descriptions: Sequence[Mapping[str, Any]]) -> None:
    """Write the page, its engine and checkpoints, in the place of what an earlier call wrote there.

    Args:
        folder: where the page is written: a new folder, an empty one, or one of an earlier call.
        checkpoints: safetensors files by name.
        descriptions: what the page shows of each, as the server answers ``/api/checkpoints``; each has a ``name``.

    Raises:
        MetaLearningError: the folder holds other files, or cannot be written, or a checkpoint cannot be read.
    """
    try:
        content = dict(_files(PAGE))
        content["index.html"] = content["index.html"].replace(SERVER, LOCAL)
        listed = json.dumps(list(descriptions), indent=1, ensure_ascii=False)
        content["checkpoints/index.json"] = f"{listed}\n".encode()
        for description in descriptions:
            name = description["name"]
            content[f"checkpoints/{name}.safetensors"] = checkpoints[name].read_bytes()
        if not (folder / MANIFEST).exists() and folder.exists() and any(folder.iterdir()):
            raise MetaLearningError(
                f"--static is {folder}, expected a new or an empty folder: name another, or empty it"
            )
        replace_files(folder, {name: _writer(data) for name, data in content.items()}, MANIFEST, "--static")
    except (OSError, ValueError) as error:
        raise MetaLearningError(f"--static is {folder}, where the page cannot be written: {error}") from error


def _files(folder: "Traversable", above: str = "") -> Iterator[tuple[str, bytes]]:
    """Path below ``folder`` and content of every file in it."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{above}{entry.name}/")
        else:
            yield above + entry.name, entry.read_bytes()


def _writer(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)
