"""Files of few-shot data sets from where learn2learn fetches them, checked before they have their names."""

import os
import shutil
import uuid
import zipfile
from pathlib import Path

from lightning_meta.data.learn2learn import download_file
from lightning_meta.errors import MetaLearningError

SOURCE = "https://zenodo.org/record/7978538/files/"  # as in learn2learn 0.2.0's data sets


def is_web_page(path: Path) -> bool:
    """Whether a file is a page that a server sent in its place."""
    with path.open("rb") as stream:
        return stream.read(1024).lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head"))


def download(title: str, name: str, path: Path) -> None:
    """Download file ``name`` to ``path``, which is there only when all of it is.

    Raises:
        MetaLearningError: the download failed, or a web page came.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_file(SOURCE + name, partial)
        if is_web_page(partial):
            raise MetaLearningError(
                f"{title}: {SOURCE}{name} answered with a web page, not the data: it asks for a confirmation or says "
                f"what is wrong. Open it in a browser, and put the file at {path} yourself"
            )
        partial.replace(path)
    except OSError as error:
        raise MetaLearningError(
            f"{title}: learn2learn cannot download {SOURCE}{name} to {path} ({type(error).__name__}: {error}): go "
            "online and try again, or put the file there yourself"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def download_archive(title: str, name: str, folder: Path, members: list[str]) -> None:
    """Download a zip archive and put these of its files or folders into ``folder``.

    Raises:
        MetaLearningError: the download failed, or is no whole archive with these members.
    """
    for member in members:
        if (folder / member).is_dir():
            raise MetaLearningError(
                f"{title}: {folder / member} is there but not whole: delete it, so that --data.download true "
                "fetches it anew"
            )
    archive = folder / name
    download(title, name, archive)
    extracted = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(extracted)  # checks every member's checksum
        for member in members:
            os.replace(extracted / member, folder / member)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise MetaLearningError(
            f"{title}: {SOURCE}{name} cannot be extracted to {folder} ({type(error).__name__}: {error}): make room "
            f"and try again, or put {', '.join(members)} there yourself"
        ) from error
    finally:
        shutil.rmtree(extracted, ignore_errors=True)
        archive.unlink(missing_ok=True)
