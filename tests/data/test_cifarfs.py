"""The real CIFAR-FS, beside learn2learn's reader of the same files."""

from pathlib import Path

import torch
from torchvision.transforms.functional import pil_to_tensor

from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.learn2learn import _learn2learn
from tests.data.rgb_files import SHORT


def test_real_cifarfs(cifarfs_root: Path) -> None:
    data = CIFARFSEpisodes(root=str(cifarfs_root)).load()
    assert data.images.shape == (60_000, 3, 32, 32)
    assert data.counts.tolist() == [600] * 100
    assert [len(data.splits[split]) for split in SPLITS] == [64, 16, 20]


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
