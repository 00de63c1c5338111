"""What colour data sets refuse: files that are missing, damaged or of something else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.files import image_cache
from lightning_meta.errors import MetaLearningError
from tests.data.rgb_files import EACH, SHORT, Made, dump, make


def refused(made: Made) -> str:
    episodes, root = made
    with pytest.raises(MetaLearningError) as error:
        episodes(root=str(root)).load()
    cache = root / "lightning_meta_cache"
    assert not cache.exists() or list(cache.iterdir()) == []
    return str(error.value)


def sources(made: Made) -> list[Path]:
    episodes, root = made
    return [root / file for files in episodes(root=str(root)).sources().values() for file in files]


def test_missing_files(made: Made) -> None:
    paths = sources(made)
    if made[0] is CIFARFSEpisodes:
        paths = [made[1] / f"cifarfs/cifar100/splits/bertinetto/{name}.txt" for name in SHORT.values()]
    for path in reversed(paths):
        path.unlink()
        message = refused(made)
        assert message.startswith(f"{made[0].title}: {path} does not exist")
        assert "--data.root DIR" in message and "--data.download true" in message


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_truncated_files(made: Made, part: float) -> None:
    for path in sources(made)[-2:]:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])
        message = refused(made)
        assert str(path) in message and "--data.download true" in message
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["FC100", "mini-ImageNet", "tiered-ImageNet"])
def test_web_page_in_a_files_place(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(kind, tmp_path, monkeypatch)
    path = sources(made)[0]
    path.write_text("\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    message = refused(made)
    assert message.startswith(f"{kind}: {path} is a web page, not the data: the download asked for a confirmation")


IMAGES = np.zeros((4, 32, 32, 3), np.uint8)
LARGE = np.zeros((4, 84, 84, 3), np.uint8)
NESTED: list[Any] = []  # 64**4 numbers as they look, few as they are
for _ in range(4):
    NESTED = [NESTED or 1] * 64
SHARED = dict.fromkeys(map(str, range(1000)), [0] * 1000)


@pytest.mark.parametrize(
    ("kind", "file", "content", "said"),
    [
        ("FC100", 0, {"data": IMAGES}, "expected a dict with data and labels"),
        ("FC100", 0, [1], "expected a dict with data and labels"),
        ("FC100", 0, {"data": IMAGES, "labels": [1, 2, 3]}, "3 labels for 4 images"),
        ("FC100", 0, {"data": IMAGES[:0], "labels": np.zeros(0, int)}, "0 labels for 0 images"),
        ("FC100", 0, {"data": IMAGES, "labels": [0.5] * 4}, "labels are list with float, expected a list of integers"),
        ("FC100", 0, {"data": IMAGES, "labels": [[1]] * 4}, "labels are list with list"),
        ("FC100", 0, {"data": IMAGES, "labels": [1, 2, [3], 4]}, "labels are list with list"),
        ("FC100", 0, {"data": IMAGES, "labels": NESTED}, "labels are list with list"),
        ("FC100", 0, {"data": IMAGES, "labels": np.zeros(4)}, "labels are float64 (4,), expected a list of integers"),
        ("FC100", 0, {"data": IMAGES, "labels": np.zeros((4, 1), int)}, "labels are int64 (4, 1)"),
        ("FC100", 0, {"data": IMAGES, "labels": [1, 2, 3, 2**70]}, "labels are list with integers above 64 bits"),
        ("FC100", 0, {"data": IMAGES, "labels": "1234"}, "labels are str"),
        ("FC100", 0, {"data": IMAGES * 1.0, "labels": [1] * 4}, "images are float64 (4, 32, 32, 3), expected uint8"),
        ("FC100", 0, {"data": IMAGES.transpose(0, 3, 1, 2), "labels": [1] * 4}, "images are uint8 (4, 3, 32, 32)"),
        ("FC100", 0, {"data": "abcd", "labels": [1] * 4}, "images are str"),
        ("mini-ImageNet", 1, {"image_data": LARGE}, "expected a dict with image_data and class_dict"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1]}}, "2 rows in class_dict for 4 images"),
        ("mini-ImageNet", 1, {"image_data": LARGE[:0], "class_dict": {"a": []}}, "0 rows in class_dict for 0 images"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": NESTED[:4]}}, "expected class_dict to"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": SHARED}, "1000000 rows in class_dict for 4"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1, 2], "b": [2]}}, "the 4 rows in"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1, 2, 9]}}, "are not 0..3, each once"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": [1]}, "expected class_dict to map names"),
        ("mini-ImageNet", 1, {"image_data": IMAGES, "class_dict": {"a": [0, 1, 2, 3]}}, "images are uint8 (4, 32, 32"),
        ("mini-ImageNet", 1, {"image_data": None, "class_dict": {"a": [0]}}, "images are NoneType"),
        ("tiered-ImageNet", 1, {"labels": [1]}, "expected a dict with label_specific"),
        ("tiered-ImageNet", 1, {"label_specific": [1]}, "1 labels for 12 images"),
        ("tiered-ImageNet", 0, {"images": 1}, "expected a list of encoded images"),
        ("tiered-ImageNet", 0, np.array(3), "expected a list of encoded images"),
        ("tiered-ImageNet", 0, ["\u0416"] * 12, "image 0, is not a readable image of tiered-ImageNet"),
        ("tiered-ImageNet", 0, [np.array(2**60)] * 12, "image 0, is not a readable image of tiered-ImageNet"),
        ("tiered-ImageNet", 0, [1] * 12, "image 0 is int, expected an encoded image"),
        ("tiered-ImageNet", 0, [b"no image"] * 12, "image 0, is not a readable image of tiered-ImageNet"),
    ],
)  # fmt: skip
def test_other_content(
    kind: str, file: int, content: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(kind, tmp_path, monkeypatch)
    path = sources(made)[file]
    dump(path, content)
    message = refused(made)
    assert str(path) in message and said in message and "--data.download true" in message


def test_image_of_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("CIFAR-FS", tmp_path, monkeypatch)
    path = sources(made)[5]
    Image.new("RGB", (32, 31)).save(path)
    assert f"{path} is not a readable image of CIFAR-FS (32 x 31 pixels, expected 32 x 32)" in refused(made)


@pytest.mark.parametrize("kind", ["FC100", "mini-ImageNet", "tiered-ImageNet"])
def test_folder_in_a_files_place(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(image_cache, "rank_zero_info", said.append)
    made = make(kind, tmp_path, monkeypatch)
    path = sources(made)[0]
    path.unlink()
    path.mkdir()
    assert refused(made).startswith(f"{kind}: {path} cannot be read (IsADirectoryError: ")
    assert said == []  # the cache is not at fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it names none"),
        (b" \n", "it names none"),
        (b"apple\n\xff\n", "codec can't decode"),
        (b"\0\n", "holds 0 images"),
        (None, "Is a directory"),
    ],
)
def test_damaged_list_of_classes(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("CIFAR-FS", tmp_path, monkeypatch)
    path = made[1] / "cifarfs/cifar100/splits/bertinetto/train.txt"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    message = refused(made)
    assert said in message and message.startswith("CIFAR-FS: ") and "--data.download true" in message
    assert "holds" in message or f"{path} is not a list of classes" in message


def test_missing_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("CIFAR-FS", tmp_path, monkeypatch)
    path = sources(made)[5]
    path.unlink()
    assert f"{path.parent} holds {EACH - 1} images, expected {EACH}" in refused(made)


def test_class_in_two_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("CIFAR-FS", tmp_path, monkeypatch)
    (made[1] / "cifarfs/cifar100/splits/bertinetto/test.txt").write_text("test_0\ntrain_1\n")
    assert "class train_1 is in both" in refused(made)


# FC100 from CIFAR-FS's images
