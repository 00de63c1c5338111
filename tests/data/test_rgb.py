"""Colour data sets on small files of their layouts, beside learn2learn's own readers of the same files."""

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from lightning_meta.data import cifarfs, fc100, image_cache, rgb
from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.fc100 import FC100Episodes
from lightning_meta.data.learn2learn import _learn2learn
from lightning_meta.data.mini_imagenet import MiniImageNetEpisodes
from lightning_meta.data.rgb import SPLITS, RGBEpisodes
from lightning_meta.data.tiered_imagenet import TieredImageNetEpisodes
from lightning_meta.errors import MetaLearningError
from tests.data.conftest import assert_same

CLASSES = {"train": 3, "validation": 2, "test": 2}
EACH = 4  # images of a class
SHORT = {"train": "train", "validation": "val", "test": "test"}


def pixels(side: int, split: str, number: int) -> np.ndarray:
    """Images (number * EACH, side, side, 3) whose channels differ in mean and spread."""
    random = np.random.default_rng([side, len(split), number])
    noise = random.integers(0, 120, (number * EACH, side, side, 3))
    return (noise // [1, 2, 4] + [100, 0, 10]).astype(np.uint8)


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def make_cifarfs(root: Path) -> None:
    for split, number in CLASSES.items():
        names = [f"{split}_{label}" for label in range(number)]
        lists = root / "cifarfs/cifar100/splits/bertinetto"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{SHORT[split]}.txt").write_text("".join(f"{name}\n" for name in names))
        images = pixels(32, split, number)
        for row, image in enumerate(images):
            folder = root / "cifarfs/cifar100/data" / names[row // EACH]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{row:03}.png")


def make_fc100(root: Path) -> None:
    for split, number in CLASSES.items():
        labels = np.tile(np.arange(number) + 7, EACH).tolist()
        dump(root / f"FC100_{SHORT[split]}.pickle", {"data": pixels(32, split, number), "labels": labels})


def make_mini_imagenet(root: Path) -> None:
    for split, number in CLASSES.items():
        classes = {f"n{label}": list(range(label, number * EACH, number)) for label in reversed(range(number))}
        content = {"image_data": pixels(84, split, number), "class_dict": classes}
        dump(root / f"mini-imagenet-cache-{split}.pkl", content)


def make_tiered_imagenet(root: Path) -> None:
    folder = root / "tiered-imagenet"
    folder.mkdir(parents=True)
    for split, number in CLASSES.items():
        encoded = []
        for row, image in enumerate(pixels(84, split, number)):
            Image.fromarray(image).save(folder / f"{row}.png")
            content = (folder / f"{row}.png").read_bytes()
            encoded.append(np.frombuffer(content, np.uint8)[:, None] if row % 2 else content)  # OpenCV's, or plain
            (folder / f"{row}.png").unlink()
        dump(folder / f"{SHORT[split]}_images_png.pkl", encoded)
        labels = np.tile(np.arange(number), EACH)
        dump(folder / f"{SHORT[split]}_labels.pkl", {"label_specific": labels, "label_general": labels // 2})


Made = tuple[type[RGBEpisodes], Path]
KINDS: dict[str, tuple[type[RGBEpisodes], Callable[[Path], None], str]] = {
    "CIFAR-FS": (CIFARFSEpisodes, make_cifarfs, "CIFARFS"),
    "FC100": (FC100Episodes, make_fc100, "FC100"),
    "mini-ImageNet": (MiniImageNetEpisodes, make_mini_imagenet, "MiniImagenet"),
    "tiered-ImageNet": (TieredImageNetEpisodes, make_tiered_imagenet, "TieredImagenet"),
}


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A data module's class and a folder with small files of its layout."""
    return make(request.param, tmp_path, monkeypatch)


def make(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(cifarfs, "IMAGES", EACH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    episodes, write, _ = KINDS[kind]
    write(tmp_path / "data")
    return episodes, tmp_path / "data"


def test_images_and_classes_are_those_of_learn2learn(made: Made) -> None:
    episodes, root = made
    data = episodes(str(root)).load()
    assert data.images.dtype == torch.uint8 and data.counts.tolist() == [EACH] * 7
    assert [data.splits[split].tolist() for split in SPLITS] == [[0, 1, 2], [3, 4], [5, 6]]
    theirs = {episodes.title: name for episodes, _, name in KINDS.values()}[episodes.title]
    for split in SPLITS:
        reference = getattr(_learn2learn().vision.datasets, theirs)(str(root), mode=split)
        by_label: dict[int, list[torch.Tensor]] = {}
        for image, label in (reference[row] for row in range(len(reference))):
            tensor = image.to(torch.uint8) if isinstance(image, torch.Tensor) else pil_to_tensor(image)
            by_label.setdefault(int(label), []).append(tensor)
        for place, label in zip(data.splits[split], sorted(by_label), strict=True):
            start = data.starts[place]
            assert torch.equal(data.images[start : start + EACH], torch.stack(by_label[label])), (split, label)


def test_second_start_reads_the_cache_alone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    episodes(str(root)).prepare_data()
    monkeypatch.setattr(episodes, "read", None)
    data = episodes(str(root)).load()
    assert len(data.images) == 7 * EACH and data.moments is None
    with pytest.raises(TypeError):
        episodes(str(root), cache_dir=str(root / "elsewhere")).load()


def test_damaged_cache_is_made_anew(made: Made) -> None:
    episodes, root = made
    before = episodes(str(root)).load()
    (cache,) = (root / "lightning_meta_cache").iterdir()
    whole = cache.read_bytes()
    for damage in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], whole[: len(whole) // 2], b""):
        cache.write_bytes(damage)
        assert torch.equal(episodes(str(root)).load().images, before.images)
        assert cache.read_bytes() == whole


def test_normalised_training_images_have_mean_0_and_deviation_1(made: Made) -> None:
    episodes, root = made
    plain = episodes(str(root), ways=3, shots=1, queries=EACH - 1)
    episode = plain.draw("train", torch.arange(1))  # all training images
    data = episodes(str(root), ways=3, shots=1, queries=EACH - 1, normalise=True)
    normalised = data.draw("train", torch.arange(1))
    images = torch.cat([normalised.support_x[0], normalised.query_x[0]]).transpose(0, 1).flatten(1)  # (C, pixels)
    torch.testing.assert_close(images.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(1, unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    assert data.data.moments is not None
    mean, deviation = data.data.moments
    torch.testing.assert_close(normalised.query_x * deviation + mean, episode.query_x)
    assert episode.query_x.min() >= 0 and 0.5 < episode.query_x.max() <= 1


def test_mapped_images_equal_those_in_memory(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    settings: dict[str, Any] = {"ways": 2, "queries": 2, "test_tasks": 3, "normalise": True}
    expected = episodes(str(root), **settings).draw("test", torch.arange(3))
    for module in (image_cache, rgb):
        monkeypatch.setattr(module, "MAPPED", 0)
    data = episodes(str(root), num_workers=1, **settings)
    (from_worker,) = data.test_dataloader()
    assert_same(from_worker, expected)
    assert_same(data.draw("test", torch.arange(3)), expected)
    copies = [pickle.loads(pickle.dumps(data)), copy.copy(data)]
    assert all(len(pickle.dumps(item)) < 10_000 for item in (data, *copies))  # the images are not sent
    assert all(item._data is None for item in copies)
    for item in copies:
        assert_same(item.draw("test", torch.arange(3)), expected)


def test_images_in_memory_go_with_a_copy(made: Made) -> None:
    episodes, root = made
    data = episodes(str(root), ways=2, queries=2)
    data.setup("test")
    other = pickle.loads(pickle.dumps(data))
    assert_same(other.draw("test", torch.arange(2)), data.draw("test", torch.arange(2)))
    assert other._data is not None


def test_large_sets_need_a_cache(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    monkeypatch.setattr(image_cache, "MAPPED", 0)
    for place in (root / "lightning_meta_cache", tmp_path / "user"):
        place.write_text("a file, so that no folder can be made here")
    with pytest.raises(MetaLearningError, match="--data.cache_dir DIR"):
        episodes(str(root)).load()


# What is said when something is wrong


def refused(made: Made) -> str:
    episodes, root = made
    with pytest.raises(MetaLearningError) as error:
        episodes(str(root)).load()
    cache = root / "lightning_meta_cache"
    assert not cache.exists() or list(cache.iterdir()) == []
    return str(error.value)


def sources(made: Made) -> list[Path]:
    episodes, root = made
    return [root / file for files in episodes(str(root)).sources().values() for file in files]


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


@pytest.mark.parametrize(
    ("kind", "file", "content", "said"),
    [
        ("FC100", 0, {"data": IMAGES}, "expected a dict with data and labels"),
        ("FC100", 0, [1], "expected a dict with data and labels"),
        ("FC100", 0, {"data": IMAGES, "labels": [1, 2, 3]}, "3 labels for 4 images"),
        ("FC100", 0, {"data": IMAGES[:0], "labels": np.zeros(0, int)}, "0 labels for 0 images"),
        ("FC100", 0, {"data": IMAGES, "labels": [0.5] * 4}, "labels are float64 (4,), expected a list of whole"),
        ("FC100", 0, {"data": IMAGES, "labels": [[1]] * 4}, "labels are int64 (4, 1)"),
        ("FC100", 0, {"data": IMAGES * 1.0, "labels": [1] * 4}, "images are float64 (4, 32, 32, 3), expected uint8"),
        ("FC100", 0, {"data": IMAGES.transpose(0, 3, 1, 2), "labels": [1] * 4}, "images are uint8 (4, 3, 32, 32)"),
        ("FC100", 0, {"data": "abcd", "labels": [1] * 4}, "images are str"),
        ("mini-ImageNet", 1, {"image_data": LARGE}, "expected a dict with image_data and class_dict"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1]}}, "2 labels for 4 images"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1, 2], "b": [2]}}, "the 4 rows in"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": {"a": [0, 1, 2, 9]}}, "are not 0..3, each once"),
        ("mini-ImageNet", 1, {"image_data": LARGE, "class_dict": [1]}, "expected class_dict to map names"),
        ("mini-ImageNet", 1, {"image_data": IMAGES, "class_dict": {"a": [0, 1, 2, 3]}}, "images are uint8 (4, 32, 32"),
        ("mini-ImageNet", 1, {"image_data": None, "class_dict": {"a": [0]}}, "images are NoneType"),
        ("tiered-ImageNet", 1, {"labels": [1]}, "expected a dict with label_specific"),
        ("tiered-ImageNet", 1, {"label_specific": [1]}, "1 labels for 12 images"),
        ("tiered-ImageNet", 0, {"images": 1}, "expected a list of encoded images"),
        ("tiered-ImageNet", 0, [1] * 12, "image 0 is int, expected an encoded image"),
        ("tiered-ImageNet", 0, [b"no image"] * 12, "image 0, is no readable image of tiered-ImageNet"),
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
    assert f"{path} is no readable image of CIFAR-FS (32 x 31 pixels, expected 32 x 32)" in refused(made)


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


def test_fc100_split_is_a_partition() -> None:
    split = fc100.read_split()
    assert [len(split[name]) for name in SPLITS] == [60, 20, 20]
    assert len({label for classes in split.values() for label in classes}) == 100
    assert {"apple", "crocodile", "tank"} <= set(split["train"])
    assert {"lion", "worm"} <= set(split["validation"]) and {"boy", "whale", "fox"} <= set(split["test"])


def test_fc100_without_its_files_is_taken_from_cifarfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, root = make("CIFAR-FS", tmp_path, monkeypatch)
    mine = {"train": ["test_1", "train_0"], "validation": ["train_1"], "test": ["test_0"]}
    monkeypatch.setattr(fc100, "read_split", lambda: mine)
    data = FC100Episodes(str(root)).load()
    assert {split: len(classes) for split, classes in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    expected = torch.from_numpy(pixels(32, "test", 2)).permute(0, 3, 1, 2)
    assert torch.equal(data.images[:EACH], expected[EACH:]) and torch.equal(data.images[-EACH:], expected[:EACH])
    make_fc100(root)
    assert len(FC100Episodes(str(root)).load().images) == 7 * EACH


# Real CIFAR-FS


def test_real_cifarfs(cifarfs_root: Path) -> None:
    data = CIFARFSEpisodes(str(cifarfs_root)).load()
    assert data.images.shape == (60_000, 3, 32, 32)
    assert data.counts.tolist() == [600] * 100
    assert [len(data.splits[split]) for split in SPLITS] == [64, 16, 20]


def test_real_fc100_and_cifarfs_hold_the_same_images(cifarfs_root: Path) -> None:
    ours, other = FC100Episodes(str(cifarfs_root)).sources(), CIFARFSEpisodes(str(cifarfs_root)).sources()
    assert [len(ours[split]) for split in SPLITS] == [36_000, 12_000, 12_000]
    assert sorted(itertools.chain(*ours.values())) == sorted(itertools.chain(*other.values()))


def test_real_images_are_those_of_learn2learn(cifarfs_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifarfs/cifar100"
    (folder / "splits/bertinetto").mkdir(parents=True)
    (folder / "data").mkdir()
    for name in SHORT.values():
        given = (cifarfs_root / f"cifarfs/cifar100/splits/bertinetto/{name}.txt").read_text().split()[:2]
        (folder / f"splits/bertinetto/{name}.txt").write_text("\n".join(given))
        for label in given:
            (folder / "data" / label).symlink_to(cifarfs_root / "cifarfs/cifar100/data" / label)
    data = CIFARFSEpisodes(str(tmp_path)).load()
    for place, split in enumerate(SPLITS):
        reference = _learn2learn().vision.datasets.CIFARFS(str(tmp_path), mode=split)
        assert len(reference) == 1200
        for row in range(0, 1200, 37):
            image, label = reference[row]
            assert label == row // 600
            assert torch.equal(data.images[1200 * place + row], pil_to_tensor(image))
