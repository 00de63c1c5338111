"""Downloads of data sets, in place only when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile

from torchvision.datasets.utils import download_url, extract_archive

from lightning_meta.errors import MetaLearningError

# learn2learn 0.2.0's copies of CIFAR-FS, FC100, mini- and tiered-ImageNet. They have no published checksums: whether a
# file is complete and the right one is checked by its structure, when it is read.
ZENODO = "https://zenodo.org/record/7978538/files/"


def is_web_page(path: Path) -> bool:
    """Whether a file is a page that a server sent in its place."""
    with path.open("rb") as stream:
        return stream.read(1024).lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head"))


def download(title: str, url: str, path: Path) -> None:
    """Download a file to ``path``, which exists only once all of it is there.

    Args:
        title: the data set, for messages.
        url: of the file.
        path: where to put it.

    Raises:
        MetaLearningError: the download failed, or the server sent a web page.
    """
    with _downloaded(title, url, path.parent, str(path)) as file:
        file.replace(path)


def download_archive(title: str, url: str, folder: Path, members: list[str], md5: str | None = None) -> None:
    """Download a zip archive and put these of its files or folders into ``folder``.

    Args:
        title: the data set, for messages.
        url: of the archive.
        folder: where to put the members.
        members: paths in the archive.
        md5: checksum of the archive; None where none is published.

    Raises:
        MetaLearningError: a folder of that name is there, the download failed, or it is not a complete archive with
            these members.
    """
    for member in members:
        if (folder / member).is_dir():
            raise MetaLearningError(
                f"{title}: {folder / member} is incomplete: delete it, and --data.download true downloads it again"
            )
    with _downloaded(title, url, folder, f"{folder}/{{{','.join(members)}}}", md5) as archive:
        try:
            extract_archive(archive, archive.parent / "extracted")  # checks every member's checksum
            for member in members:
                os.replace(archive.parent / "extracted" / member, folder / member)
        except (OSError, RuntimeError, EOFError, BadZipFile) as error:
            raise MetaLearningError(
                f"{title}: {url} cannot be extracted to {folder} ({type(error).__name__}: {error}): make room "
                f"and try again, or put {', '.join(members)} there yourself"
            ) from error


@contextmanager
def _downloaded(title: str, url: str, folder: Path, target: str, md5: str | None = None) -> Iterator[Path]:
    """The file at a URL, checked, in a temporary folder inside ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=folder, ignore_cleanup_errors=True) as temporary:
            file = Path(temporary, url.rpartition("/")[2])
            download_url(url, temporary, file.name, md5)
            if md5 is None:
                _check_size(url, file)
            if is_web_page(file):
                raise MetaLearningError(
                    f"{title}: {url} answered with a web page, not the data: it asks for a confirmation or says "
                    f"what is wrong. Open it in a browser, and put the file at {target} yourself"
                )
            yield file
    except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: another checksum, or too many redirects
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise MetaLearningError(
            f"{title}: cannot download {url} to {target} ({type(error).__name__}: {error}): go online and try again, "
            "or put the files there yourself"
        ) from error


def _check_size(url: str, file: Path) -> None:
    """Refuse a download that broke off, which torchvision notices by a checksum alone."""
    with urlopen(Request(url, method="HEAD")) as response:
        expected = response.headers["Content-Length"]
    if expected is not None and int(expected) != file.stat().st_size:
        raise ConnectionError(f"{file.stat().st_size} of {expected} bytes came")
