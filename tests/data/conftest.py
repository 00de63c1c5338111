"""A tiny Omniglot, small files in the layouts of the colour data sets, and a server of files."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from lightning_meta.data import omniglot
from lightning_meta.data.files import omniglot_cache
from tests.data.file_server import FileServer
from tests.data.folder_files import CLASSES, IN_SPLIT, write_class
from tests.data.omniglot_files import OMNIGLOT_SPLITS, draw_characters
from tests.data.rgb_files import KINDS, Made, make


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Omniglot, its split in the place of the shipped ones, and a user's cache folder of its own."""
    monkeypatch.setattr(omniglot, "read_splits", lambda name: OMNIGLOT_SPLITS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    draw_characters(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, one entry for each time that happened."""
    calls: list[int] = []
    decode = omniglot_cache._decode

    def counted(source: Path, files: list[str], rendering: omniglot_cache.Rendering) -> Tensor:
        calls.append(len(files))
        return decode(source, files, rendering)

    monkeypatch.setattr(omniglot_cache, "_decode", counted)
    return calls


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A data module's class and a folder with small files of its layout."""
    return make(request.param, tmp_path, monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of files that runs as long as the test."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for each class."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for name in CLASSES:
        write_class(tmp_path / "trees", name)
    return tmp_path / "trees"


@pytest.fixture
def split_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders train, val and test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for split, names in IN_SPLIT.items():
        for name in names:
            write_class(tmp_path / "split" / split, name)
    return tmp_path / "split"
