"""MNIST from files of its own format, and from the real ones: each split has its images, sorted by digit."""

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST
from torchvision.datasets.utils import calculate_md5

from lightning_meta.data import MNISTEpisodes, mnist
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError
from tests.data.file_server import FileServer

TRAIN, VALIDATION, TEST = 40, 20, 30
PARTS: dict[Split, tuple[int, int]] = {"train": (0, 40), "validation": (40, 60), "test": (100, 130)}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits 0, 1, ..., 9, 0, ... whose pixels are their place in their file, from 100 on in that for tests."""
    monkeypatch.setattr(mnist, "VALIDATION", VALIDATION)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, first, count in (("train", 0, TRAIN + VALIDATION), ("t10k", 100, TEST)):
        pixels = np.repeat(np.arange(first, first + count, dtype=np.uint8), 28 * 28)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return tmp_path


def small(root: Path, **changes: Any) -> MNISTEpisodes:
    return MNISTEpisodes(root=str(root), **{"shots": 1, "queries": 1, "check_files": False} | changes)


@pytest.mark.parametrize("split", PARTS)
def test_tasks_take_all_digits_of_their_own_images(split: Split, root: Path) -> None:
    data = small(root)
    data.setup("fit" if split == "train" else {"validation": "validate", "test": "test"}[split])
    episode = data.draw(split, torch.arange(200))
    assert episode.support_x.shape == episode.query_x.shape == (200, 10, 1, 28, 28)
    places = (torch.stack([episode.support_x, episode.query_x])[..., 0, 0, 0] * 255).round().long()
    low, high = PARTS[split]
    assert places.unique().tolist() == list(range(low, high))
    assert torch.equal((places % 10).sort(-1).values, torch.arange(10).expand(2, 200, -1))  # each digit once
    assert torch.equal(places[0] % 10, places[1] % 10)  # label by label
    assert torch.equal(places[0] % 10, episode.classes)
    assert not (places[0] == places[1]).any()


@pytest.mark.parametrize("change", ["missing", "damaged"])
def test_files_that_cannot_be_read_are_refused(change: str, root: Path) -> None:
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MetaLearningError, match="MNIST cannot be read in .*MNIST/raw .*--data.root DIR.* true"):
        small(root).prepare_data()


@pytest.mark.parametrize("name", mnist.MD5)
def test_files_with_changed_bytes_are_refused_by_name(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "MNIST" / "raw"
    monkeypatch.setattr(mnist, "MD5", {path.name: calculate_md5(path) for path in folder.iterdir()})
    small(root, check_files=True).prepare_data()
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1  # as a disk may flip it
    (folder / name).write_bytes(content)
    with pytest.raises(MetaLearningError, match=rf"MNIST: .*/{name} is not the published file .*check_files false"):
        small(root, check_files=True).prepare_data()
    small(root).prepare_data()


def test_other_digits_are_refused_unless_asked_for(root: Path) -> None:
    with pytest.raises(MetaLearningError, match="train-images-idx3-ubyte is not the published file"):
        small(root, check_files=True).prepare_data()


def test_the_packed_files_that_are_downloaded_have_checksums(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name.removesuffix(".gz") for name, md5 in MNIST.resources if len(md5) == 32} == mnist.MD5.keys()
    monkeypatch.setattr(MNIST, "mirrors", [server.url])
    server.files = {name: gzip.compress(b"other digits") for name, _ in MNIST.resources}
    with pytest.raises(MetaLearningError, match="MNIST cannot be read in"):
        small(tmp_path, download=True).prepare_data()
    assert not [*tmp_path.rglob("*-ubyte")]


def test_a_copy_in_the_former_format_does_not_stand_for_the_files(root: Path) -> None:
    (root / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(40, 28, 28, dtype=torch.uint8), torch.arange(40) % 10), root / "MNIST/processed" / name)
    assert len(small(root).load().images) == TRAIN + VALIDATION + TEST


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    path = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MetaLearningError, match="MNIST cannot be read in"):
        small(root, check_files=True).prepare_data()


def test_tasks_that_the_images_cannot_fill_are_refused(root: Path) -> None:
    with pytest.raises(MetaLearningError, match=r"3 shots \+ 1 queries = 4 .* have 3 or more"):
        small(root, shots=3).setup("test")


def test_the_real_files(mnist_root: Path) -> None:
    data = MNISTEpisodes(root=str(mnist_root), check_files=False).load()  # in whatever order a copy has them
    assert data.images.shape == (70000, 1, 28, 28)
    totals = [int(data.counts[data.splits[split]].sum()) for split in ("train", "validation", "test")]
    assert totals == [50000, 10000, 10000]
    assert data.counts[data.splits["test"]].tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    means = {
        split: torch.stack([
            data.images[start : start + count].double().mean(0).flatten()
            for start, count in zip(data.starts[own].tolist(), data.counts[own].tolist(), strict=True)
        ])
        for split, own in data.splits.items()
    }  # fmt: skip
    for split in ("validation", "test"):  # a digit looks like itself
        assert torch.cdist(means["train"], means[split]).argmin(1).tolist() == list(range(10))
