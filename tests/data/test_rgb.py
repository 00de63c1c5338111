"""Colour data sets on small files of their layouts, beside learn2learn's own readers of the same files."""

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from lightning_meta.data import fc100
from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.drawing import photographs as rgb
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.fc100 import FC100Episodes
from lightning_meta.data.files import image_cache
from lightning_meta.data.learn2learn import _learn2learn
from lightning_meta.errors import MetaLearningError
from tests.data.rgb_files import EACH, KINDS, SHORT, Made, make, make_fc100, pixels
from tests.data.tiny_episodes import assert_same


def test_images_and_classes_are_those_of_learn2learn(made: Made) -> None:
    episodes, root = made
    data = episodes(root=str(root)).load()
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
    episodes(root=str(root)).prepare_data()
    monkeypatch.setattr(episodes, "read", None)
    data = episodes(root=str(root)).load()
    assert len(data.images) == 7 * EACH and data.moments is None
    with pytest.raises(TypeError):
        episodes(root=str(root), cache_dir=str(root / "elsewhere")).load()


def test_damaged_cache_is_made_anew(made: Made) -> None:
    episodes, root = made
    before = episodes(root=str(root)).load()
    (cache,) = (root / "lightning_meta_cache").iterdir()
    whole = cache.read_bytes()
    for damage in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], whole[: len(whole) // 2], b""):
        cache.write_bytes(damage)
        assert torch.equal(episodes(root=str(root)).load().images, before.images)
        assert cache.read_bytes() == whole


def test_normalised_training_images_have_mean_0_and_deviation_1(made: Made) -> None:
    episodes, root = made
    plain = episodes(root=str(root), ways=3, shots=1, queries=EACH - 1)
    episode = plain.draw("train", torch.arange(1))  # all training images
    data = episodes(root=str(root), ways=3, shots=1, queries=EACH - 1, normalise=True)
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
    expected = episodes(root=str(root), **settings).draw("test", torch.arange(3))
    for module in (image_cache, rgb):
        monkeypatch.setattr(module, "MAPPED", 0)
    data = episodes(root=str(root), num_workers=1, **settings)
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
    data = episodes(root=str(root), ways=2, queries=2)
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
        episodes(root=str(root)).load()


# What is said when something is wrong


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
    data = FC100Episodes(root=str(root)).load()
    assert {split: len(classes) for split, classes in data.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    expected = torch.from_numpy(pixels(32, "test", 2)).permute(0, 3, 1, 2)
    assert torch.equal(data.images[:EACH], expected[EACH:]) and torch.equal(data.images[-EACH:], expected[:EACH])
    make_fc100(root)
    assert len(FC100Episodes(root=str(root)).load().images) == 7 * EACH


# Real CIFAR-FS


def test_real_cifarfs(cifarfs_root: Path) -> None:
    data = CIFARFSEpisodes(root=str(cifarfs_root)).load()
    assert data.images.shape == (60_000, 3, 32, 32)
    assert data.counts.tolist() == [600] * 100
    assert [len(data.splits[split]) for split in SPLITS] == [64, 16, 20]


def test_real_fc100_and_cifarfs_hold_the_same_images(cifarfs_root: Path) -> None:
    ours, other = FC100Episodes(root=str(cifarfs_root)).sources(), CIFARFSEpisodes(root=str(cifarfs_root)).sources()
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
    data = CIFARFSEpisodes(root=str(tmp_path)).load()
    for place, split in enumerate(SPLITS):
        reference = _learn2learn().vision.datasets.CIFARFS(str(tmp_path), mode=split)
        assert len(reference) == 1200
        for row in range(0, 1200, 37):
            image, label = reference[row]
            assert label == row // 600
            assert torch.equal(data.images[1200 * place + row], pil_to_tensor(image))
