"""FC100: its split, and its images where only those of CIFAR-FS are there."""

import itertools
from pathlib import Path

import pytest
import torch

from lightning_meta.data import fc100
from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.fc100 import FC100Episodes
from tests.data.rgb_files import EACH, make, make_fc100, pixels


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


def test_real_fc100_and_cifarfs_hold_the_same_images(cifarfs_root: Path) -> None:
    ours, other = FC100Episodes(root=str(cifarfs_root)).sources(), CIFARFSEpisodes(root=str(cifarfs_root)).sources()
    assert [len(ours[split]) for split in SPLITS] == [36_000, 12_000, 12_000]
    assert sorted(itertools.chain(*ours.values())) == sorted(itertools.chain(*other.values()))
