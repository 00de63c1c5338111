"""Small files in the layouts of the colour data sets, for tests."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_meta.data import cifarfs
from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.drawing.photographs import RGBEpisodes
from lightning_meta.data.fc100 import FC100Episodes
from lightning_meta.data.mini_imagenet import MiniImageNetEpisodes
from lightning_meta.data.tiered_imagenet import TieredImageNetEpisodes

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


def make(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(cifarfs, "IMAGES", EACH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    episodes, write, _ = KINDS[kind]
    write(tmp_path / "data")
    return episodes, tmp_path / "data"
