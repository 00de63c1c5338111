"""Downloads of data sets, from a server on this machine."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from lightning_meta.data import cifarfs, fc100, mini_imagenet, tiered_imagenet
from lightning_meta.data.files import downloads
from lightning_meta.errors import MetaLearningError
from tests.data.file_server import FileServer
from tests.data.rgb_files import KINDS, make


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_download(kind: str, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert downloads.ZENODO == "https://zenodo.org/record/7978538/files/"
    for module in (cifarfs, fc100, mini_imagenet, tiered_imagenet):
        monkeypatch.setattr(module, "ZENODO", server.url)
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
    assert sorted(set(server.asked)) == sorted(server.files)
    asked = len(server.asked)
    assert data.load().images.equal(images)
    assert len(server.asked) == asked  # nothing is fetched again
    assert sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*")) == there


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def test_a_web_page_is_not_taken_for_the_data(tmp_path: Path, server: FileServer) -> None:
    server.files = {"file.pkl": b"<!doctype html><title>Sign in"}
    said = "^Set: http.*/file.pkl answered with a web page.* put the file at .*root/file.pkl yourself"
    with pytest.raises(MetaLearningError, match=said):
        downloads.download("Set", server.url + "file.pkl", tmp_path / "root" / "file.pkl")
    assert left(tmp_path / "root") == []


def test_failed_download(tmp_path: Path, server: FileServer) -> None:
    path = tmp_path / "root" / "file.pkl"
    said = f"^Set: cannot download {server.url}file.pkl to {path} .HTTPError: HTTP Error 404.*: go online and try again"
    with pytest.raises(MetaLearningError, match=said) as error:
        downloads.download("Set", server.url + "file.pkl", path)
    assert ".download-" not in str(error.value) and "elete" not in str(error.value)  # what is not there
    assert left(tmp_path / "root") == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, server: FileServer) -> None:
    server.files, server.missing = {"file.pkl": bytes(1000)}, 1
    with pytest.raises(MetaLearningError, match="999 of 1000 bytes came"):
        downloads.download("Set", server.url + "file.pkl", tmp_path / "root" / "file.pkl")
    assert left(tmp_path / "root") == []


def test_no_folder_to_put_it_in(tmp_path: Path, server: FileServer) -> None:
    server.files = {"file.pkl": b"content"}
    (tmp_path / "root").write_text("a file, so that no folder can be made here")
    with pytest.raises(MetaLearningError, match="cannot download .*FileExistsError"):
        downloads.download("Set", server.url + "file.pkl", tmp_path / "root" / "file.pkl")
    assert server.asked == []


def test_archive_of_another_checksum(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "member").write_bytes(bytes(1000))
    server.files = {"archive.zip": zipped(tmp_path / "given")}
    url, md5 = server.url + "archive.zip", hashlib.md5(server.files["archive.zip"]).hexdigest()
    with pytest.raises(MetaLearningError, match="cannot download .*archive.zip .*corrupted"):
        downloads.download_archive("Set", url, tmp_path / "root", ["member"], md5[::-1])
    assert left(tmp_path / "root") == []
    downloads.download_archive("Set", url, tmp_path / "root", ["member"], md5)
    assert left(tmp_path / "root") == ["member"]


def test_failed_archive(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "member").write_bytes(bytes(1000))
    whole = zipped(tmp_path / "given")
    damaged = whole[:500] + b"x" + whole[501:]
    for answer, members in ((whole[:500], ["member"]), (damaged, ["member"]), (whole, ["other"])):
        server.files = {"archive.zip": answer}
        with pytest.raises(MetaLearningError, match="archive.zip cannot be extracted to .*put .* there yourself"):
            downloads.download_archive("Set", server.url + "archive.zip", tmp_path / "root", members)
        assert left(tmp_path / "root") == []


def test_an_incomplete_folder_is_left_alone(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "root" / "member").mkdir(parents=True)
    with pytest.raises(MetaLearningError, match="member is incomplete: delete it"):
        downloads.download_archive("Set", server.url + "archive.zip", tmp_path / "root", ["member"])
    assert server.asked == []
