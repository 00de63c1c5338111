"""Tasks from folders of pictures: those of the same arrays, the split, and how a picture becomes an image."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_meta.data import ArrayEpisodes, CIFARFSEpisodes, FolderEpisodes
from lightning_meta.data.files.pictures import open_picture
from tests.data import rgb_files
from tests.data.folder_files import CLASSES, IN_SPLIT, LEFT_OUT, SIDE, episodes, held_out, pixels
from tests.data.tiny_episodes import SPLITS, assert_same


@pytest.mark.parametrize("split", SPLITS)
def test_folders_give_the_tasks_of_the_same_arrays(tree: Path, split: Any) -> None:
    x = np.concatenate([pixels(name) for name in CLASSES]).transpose(0, 3, 1, 2)
    arrays = ArrayEpisodes(
        x=x, y=np.repeat(list(CLASSES), list(CLASSES.values())), validation_classes=2, test_classes=3, split_seed=3,
        ways=2, shots=2, queries=3,
    )  # fmt: skip
    data, numbers = held_out(tree, split_seed=3), torch.arange(50)
    assert_same(data.draw(split, numbers), arrays.draw(split, numbers))
    arrays.seed = 1
    assert_same(held_out(tree, split_seed=3, seed=1).draw(split, numbers), arrays.draw(split, numbers))
    assert data.data.names == list(CLASSES)


def test_a_row_is_a_picture_of_the_class_that_it_stands_for(split_tree: Path) -> None:
    data = episodes(split_tree)
    for split, names in zip(("train", "validation", "test"), IN_SPLIT.values(), strict=True):
        episode = data.draw(split, torch.arange(20))
        for task in range(20):
            for row, label in enumerate(episode.support_y[task]):
                of_class = pixels(names[episode.classes[task, label]]).transpose(0, 3, 1, 2)
                row_pixels = (episode.support_x[task, row] * 255).round().byte().numpy()
                assert any(np.array_equal(row_pixels, picture) for picture in of_class)


@pytest.mark.parametrize("kind", ["json", "text"])
def test_a_file_splits_as_folders_do(tree: Path, split_tree: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "list"
    lines = "".join(f"{split}  {name}\n\n" for split, names in IN_SPLIT.items() for name in reversed(names))
    file.write_text(json.dumps(IN_SPLIT) if kind == "json" else lines)
    data, expected = episodes(tree, split_file=str(file)), episodes(split_tree)
    assert data.class_splits == expected.class_splits
    for split in SPLITS:
        assert_same(data.draw(split, torch.arange(20)), expected.draw(split, torch.arange(20)))


@pytest.mark.parametrize("normalise", [False, True])
def test_cifarfs_as_a_folder_has_the_tasks_of_cifarfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalise: bool
) -> None:
    _, root = rgb_files.make("CIFAR-FS", tmp_path, monkeypatch)
    lists = root / "cifarfs/cifar100/splits/bertinetto"
    named = {split: (lists / f"{split}.txt").read_text().split() for split in IN_SPLIT}
    (tmp_path / "split.json").write_text(json.dumps(named))
    settings: dict[str, Any] = {"ways": 2, "queries": 3, "normalise": normalise}
    expected = CIFARFSEpisodes(root=str(root), **settings)
    data = FolderEpisodes(
        root=str(root / "cifarfs/cifar100/data"), image_size=32, split_file=str(tmp_path / "split.json"), **settings
    )
    for split in SPLITS:
        assert_same(data.draw(split, torch.arange(9)), expected.draw(split, torch.arange(9)))
    assert data.preprocessing == expected.preprocessing


def test_sub_folders_belong_to_the_class_and_hidden_files_do_not(tree: Path) -> None:
    shutil.rmtree(tree / "ash")
    for path in ("ash/a/2.PNG", "ash/b/1.png", "ash/3.webp"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(tree / path)
    for path in ("ash/.ipynb_checkpoints/1.png", "ash/._1.png", ".git/1.png", "ash/notes.txt", "list.png"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text("not a picture")
    data = held_out(tree, queries=1)
    assert data.folders.files["ash"] == ["ash/3.webp", "ash/a/2.PNG", "ash/b/1.png"]
    assert list(data.folders.files) == list(CLASSES)


def test_the_split_does_not_depend_on_shots(tree: Path) -> None:
    few, many = held_out(tree), held_out(tree, queries=5)
    with pytest.warns(UserWarning, match=rf"^3 of 9 classes {LEFT_OUT}: ash \(6\), elm \(6\), larch \(6\)$"):
        many.setup("test")
    assert few.class_splits == many.class_splits
    for split in SPLITS:
        left = [name for name in few.class_splits[split] if CLASSES[name] > 6]
        assert [list(CLASSES)[place] for place in many.data.splits[split]] == left


def drawing(width: int, height: int, paper: int = 255) -> Image.Image:
    picture = Image.new("L", (width, height), paper)
    picture.paste(255 - paper, (width // 3, height // 3, width // 2, height // 2))
    return picture


def test_drawings_are_padded_and_photographs_are_cropped_as_at_use(tmp_path: Path) -> None:
    for number, size in enumerate([(12, 12), (30, 18), (9, 20)] * 7):
        for name in ("a", "b"):
            (tmp_path / "drawn" / name).mkdir(parents=True, exist_ok=True)
            drawing(*size).save(tmp_path / "drawn" / name / f"{number:02}.png")
    drawing(12, 12, 0).save(tmp_path / "drawn" / "a" / "00.png")  # one of 42 is light on dark
    for kind, background in (("drawn", 1.0), ("photographed", None)):
        if kind == "photographed":
            shutil.copytree(tmp_path / "drawn", tmp_path / kind)
            for number in range(3):  # more than one in twenty
                drawing(30, 18, 0).save(tmp_path / kind / "b" / f"{number:02}.png")
        data = episodes(tmp_path / kind, channels=1, image_size=12)
        preprocessing = data.preprocessing
        assert preprocessing.background == background
        files = [file for name in ("a", "b") for file in data.folders.files[name]]
        expected = [preprocessing.pixels(open_picture(tmp_path / kind / file)) for file in files]
        assert np.array_equal(data.data.images.numpy(), np.stack(expected))
        assert bool(data.data.images[0, 0, 0, 0] == 255) == (background is not None)


def test_normalised_images_are_those_of_the_preprocessing(split_tree: Path) -> None:
    data = episodes(split_tree, normalise=True, shots=1, queries=5, ways=3)
    plain = episodes(split_tree, shots=1, queries=5, ways=3).draw("test", torch.arange(4)).query_x
    drawn = data.draw("test", torch.arange(4)).query_x
    torch.testing.assert_close(drawn, data.preprocessing.inputs((plain * 255).round().byte()))
    train = np.concatenate([pixels(name) for name in IN_SPLIT["train"]]).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.preprocessing.mean, train.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.preprocessing.deviation, train.std(0), rtol=1e-6)


def test_pictures_of_every_kind_are_read_right(tmp_path: Path) -> None:
    grey = np.full((SIDE, SIDE), 100, np.uint8)
    grey[0] = 200  # the upper row
    upright = Image.fromarray(grey)
    folder = tmp_path / "kinds" / "a"
    folder.mkdir(parents=True)
    upright.save(folder / "0.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "1.png")
    upright.convert("P").save(folder / "2.png")
    upright.convert("RGB").convert("CMYK").save(folder / "3.tif")
    upright.convert("P").save(folder / "4.gif", save_all=True, append_images=[Image.new("P", (SIDE, SIDE))])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.rotate(90).save(folder / "5.png", exif=exif)
    upright.convert("LA").save(folder / "6.webp", lossless=True)
    data = episodes(tmp_path / "kinds", channels=1, test_tasks=0)
    assert data.data.counts.tolist() == [7]
    assert (data.data.images == torch.from_numpy(grey)).all()
