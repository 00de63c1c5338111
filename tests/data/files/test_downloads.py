"""Downloads of colour data sets, with learn2learn's function in the place of the network."""

import io
import zipfile
from pathlib import Path

import pytest

from lightning_meta.data.files import downloads
from lightning_meta.data.learn2learn import _learn2learn
from lightning_meta.errors import MetaLearningError
from tests.data.test_rgb import KINDS, make


class Server:
    """Answers with files of a folder."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def __call__(self, source: str, destination: str) -> None:
        folder, _, name = source.rpartition("/")
        assert folder == "https://zenodo.org/record/7978538/files"
        self.asked.append(name)
        Path(destination).write_bytes(self.files[name][:1])  # learn2learn writes as it goes
        if self.files[name] == b"offline":
            raise ConnectionError("no route")
        Path(destination).write_bytes(self.files[name])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(_learn2learn().data.utils, "download_file", server)
    return server


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_download(kind: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = make(kind, tmp_path, monkeypatch)
    if kind == "CIFAR-FS":
        server.files = {"cifar100.zip": zipped(root / "cifarfs")}
    elif kind == "FC100":
        server.files = {"fc100.zip": zipped(root)}
    else:
        files = [path for path in root.rglob("*") if path.is_file()]
        server.files = {str(path.relative_to(root)).replace("/", "-"): path.read_bytes() for path in files}
    there = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    images = episodes(root=str(root)).load().images
    fresh = tmp_path / "fresh"
    data = episodes(root=str(fresh), download=True, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    assert data.load().images.equal(images)
    assert sorted(server.asked) == sorted(server.files)  # once each
    assert sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*")) == there


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"<!doctype html><title>Sign in",
            "^Set: https.*/file.pkl answered with a web page.* put the file at .*root/file",
        ),
        (b"offline", "learn2learn cannot download .*ConnectionError: no route.*go online"),
    ],
)
def test_failed_download(tmp_path: Path, server: Server, answer: bytes, said: str) -> None:
    server.files = {"file.pkl": answer}
    with pytest.raises(MetaLearningError, match=said) as error:
        downloads.download("Set", "file.pkl", tmp_path / "root" / "file.pkl")
    assert "/.file.pkl" not in str(error.value) and "elete" not in str(error.value)  # what is not there
    assert left(tmp_path / "root") == []


def test_failed_archive(tmp_path: Path, server: Server) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "member").write_bytes(bytes(1000))
    whole = zipped(tmp_path / "given")
    damaged = whole[:500] + b"x" + whole[501:]
    for answer, members in ((whole[:500], ["member"]), (damaged, ["member"]), (whole, ["other"])):
        server.files = {"archive.zip": answer}
        with pytest.raises(MetaLearningError, match="archive.zip cannot be extracted to .*put .* there yourself"):
            downloads.download_archive("Set", "archive.zip", tmp_path / "root", members)
        assert left(tmp_path / "root") == []


def test_folder_that_is_not_whole_is_left_alone(tmp_path: Path, server: Server) -> None:
    (tmp_path / "root" / "member").mkdir(parents=True)
    with pytest.raises(MetaLearningError, match="member is there but not whole: delete it"):
        downloads.download_archive("Set", "archive.zip", tmp_path / "root", ["member"])
    assert server.asked == []
