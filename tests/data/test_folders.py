"""Tasks from folders of pictures: those of the same arrays, splits, augmentation, and pictures that cannot be read."""

import inspect
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_meta.cli import main
from lightning_meta.data import ArrayEpisodes, CIFARFSEpisodes, FolderEpisodes
from lightning_meta.data.drawing import images
from lightning_meta.data.drawing.sampler import TaskDataset
from lightning_meta.data.files import folder_cache, image_cache
from lightning_meta.data.files.pictures import open_picture
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import SHORT_RUN
from tests.data import rgb_files
from tests.data.tiny_episodes import SPLITS, assert_same

CLASSES = {"ash": 6, "birch": 7, "cedar": 8, "elm": 6, "fir": 7, "hazel": 8, "larch": 6, "maple": 7, "oak": 8}
IN_SPLIT = {"train": ["ash", "elm", "fir", "larch"], "val": ["birch", "oak"], "test": ["cedar", "hazel", "maple"]}
SIDE = 6
LEFT_OUT = "have fewer pictures than a task needs and are left out"


def pixels(name: str) -> np.ndarray:
    """The pictures of a class, uint8 (pictures, side, side, 3)."""
    shape = (CLASSES[name], SIDE, SIDE, 3)
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, shape, np.uint8)


def write_class(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    for number, picture in enumerate(pixels(name)):
        Image.fromarray(picture).save(folder / name / f"{number}.png")


@pytest.fixture(autouse=True)
def own_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder for each class."""
    for name in CLASSES:
        write_class(tmp_path / "trees", name)
    return tmp_path / "trees"


@pytest.fixture
def split_tree(tmp_path: Path) -> Path:
    """Folders train, val and test."""
    for split, names in IN_SPLIT.items():
        for name in names:
            write_class(tmp_path / "split" / split, name)
    return tmp_path / "split"


def episodes(root: Path, **changes: Any) -> FolderEpisodes:
    settings: dict[str, Any] = {"image_size": SIDE, "ways": 2, "shots": 2, "queries": 3}
    return FolderEpisodes(root=str(root), **settings | changes)


def held_out(root: Path, **changes: Any) -> FolderEpisodes:
    return episodes(root, **{"validation_classes": 2, "test_classes": 3} | changes)


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
    with pytest.warns(UserWarning, match=rf"3 of 9 classes in .* {LEFT_OUT}: ash \(6\), elm \(6\), larch \(6\)$"):
        many.setup("test")
    assert few.class_splits == many.class_splits
    for split in SPLITS:
        left = [name for name in few.class_splits[split] if CLASSES[name] > 6]
        assert [list(CLASSES)[place] for place in many.data.splits[split]] == left


# How a picture becomes an image.


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
    data = episodes(tmp_path / "kinds", channels=1, ways=1, test_tasks=0)
    data.setup("fit")
    assert data.data.counts.tolist() == [7]
    assert (data.data.images == torch.from_numpy(grey)).all()


# Augmentation.

CROP = v2.Compose([v2.RandomCrop(SIDE, padding=2), v2.RandomHorizontalFlip()])


def test_each_transform_sees_its_own_images_of_training_tasks(split_tree: Path) -> None:
    plain, numbers, flip = episodes(split_tree, normalise=True), torch.arange(10), v2.RandomHorizontalFlip(p=1.0)
    expected = plain.draw("train", numbers)
    for part in ("support", "query"):
        data = episodes(split_tree, normalise=True, **{f"{part}_transform": flip})
        flipped = expected._replace(**{f"{part}_x": getattr(expected, f"{part}_x").flip(-1)})
        assert_same(data.draw("train", numbers), flipped)
        for split in ("validation", "test"):
            assert_same(data.draw(split, numbers), plain.draw(split, numbers))


def test_a_transform_may_give_floats(split_tree: Path) -> None:
    darken = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ColorJitter(brightness=(0.5, 0.5))])
    expected = episodes(split_tree).draw("train", torch.arange(10))
    found = episodes(split_tree, query_transform=darken).draw("train", torch.arange(10))
    torch.testing.assert_close(found._replace(query_x=found.query_x * 2), expected)


def test_augmentation_is_a_function_of_seed_and_task(split_tree: Path) -> None:
    data = episodes(split_tree, support_transform=CROP, query_transform=CROP)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    together = data.draw("train", torch.arange(12))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    alone = data.draw("train", torch.tensor([11, 3]))
    for task, number in enumerate((11, 3)):
        assert torch.equal(alone.support_x[task], together.support_x[number])
        assert torch.equal(alone.query_x[task], together.query_x[number])
    queries_alone = episodes(split_tree, query_transform=CROP).draw("train", torch.arange(12))
    assert torch.equal(queries_alone.query_x, together.query_x)
    plain = episodes(split_tree).draw("train", torch.arange(12))
    assert (together.support_x != plain.support_x).flatten(1).any(1).sum() >= 10
    other = episodes(split_tree, support_transform=CROP, seed=1).draw("train", torch.arange(12))
    assert not torch.equal(other.support_x, together.support_x)


class Mark(v2.Transform):
    """Fills an image with a random byte, of which support and query images must not have the same."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return torch.full_like(inpt, int(torch.randint(256, ())))


def test_support_and_query_have_random_numbers_of_their_own(split_tree: Path) -> None:
    data = episodes(split_tree, support_transform=Mark(), query_transform=Mark())
    episode = data.draw("train", torch.arange(100))
    support, query = (x[:, :, 0, 0, 0] for x in (episode.support_x, episode.query_x))
    assert (support[:, 0] == query[:, 0]).float().mean() < 0.05  # one in 256 by chance
    assert (support[:, 0] == support[:, 1]).float().mean() < 0.05
    assert support.unique().numel() > 150


def test_tasks_without_queries_need_no_transform_of_them(split_tree: Path) -> None:
    data = episodes(split_tree, train_queries=0, support_transform=CROP, query_transform=CROP)
    assert data.draw("train", torch.arange(3)).query_x.shape == (3, 0, 3, SIDE, SIDE)
    assert data.draw("train", torch.arange(0)).support_x.shape == (0, 4, 3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            v2.RandomCrop(4),
            "data.query_transform gives torch.uint8 (3, 4, 4), expected uint8 or floats of shape (3, 6,",
        ),
        (v2.RandomCrop(8), "data.query_transform cannot transform uint8 images of shape (3, 6, 6) (Required crop size"),
        (v2.ToDtype(torch.int64), "data.query_transform gives torch.int64 (3, 6, 6)"),
    ],
)
def test_transforms_that_give_no_such_image_are_refused(split_tree: Path, transform: v2.Transform, said: str) -> None:
    with pytest.raises(MetaLearningError, match=re.escape(said)):
        episodes(split_tree, query_transform=transform).draw("train", torch.arange(2))


def test_workers_draw_the_same_from_a_shared_map(split_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"support_transform": CROP, "meta_batch_size": 4, "test_tasks": 3}
    expected = episodes(split_tree, **settings)
    for module in (image_cache, images):
        monkeypatch.setattr(module, "MAX_IN_MEMORY", 0)
    data = episodes(split_tree, num_workers=1, **settings)
    data.setup("fit")
    from_workers = torch.utils.data.DataLoader(
        TaskDataset(data, "train"),
        batch_size=None,
        sampler=[(torch.arange(4), 0), (torch.arange(4, 8), 0)],
        num_workers=2,
    )
    for batch, episode in enumerate(from_workers):
        assert_same(episode, expected.draw("train", torch.arange(4) + 4 * batch))
    (tested,) = data.test_dataloader()
    assert_same(tested, expected.draw("test", torch.arange(3)))


# Files that are not pictures.


def bomb() -> bytes:
    """A PNG of a few bytes that claims to be 100,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a picture"), "ash/0.png is not a picture"),
    "empty": (lambda path: path.write_bytes(b""), "ash/0.png is not a picture"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:70]), "ash/0.png is not a readable picture"),
    "bomb": (lambda path: path.write_bytes(bomb()), "ash/0.png is not a readable picture"),
    "link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "ash/0.png does not exist"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_file_that_cannot_be_read_is_named_and_left_out(tree: Path, case: str) -> None:
    spoil, said = SPOILT[case]
    spoil(tree / "ash" / "0.png")
    for _ in range(2):  # decoded, and from the cache
        data = held_out(tree)
        with pytest.warns(
            UserWarning, match="^1 of 63 pictures in .* cannot be read and are left out: ash/0.png. The"
        ) as told:
            data.setup("fit")
        assert len(told) == 1 and said in str(told[0].message)
        assert "\n" not in str(told[0].message)
        assert data.data.counts.tolist() == [5, 7, 8, 6, 7, 8, 6, 7, 8]
        assert np.array_equal(data.data.images[:5].numpy(), pixels("ash")[1:].transpose(0, 3, 1, 2))
        assert np.array_equal(data.data.images[5:12].numpy(), pixels("birch").transpose(0, 3, 1, 2))
    with pytest.raises(MetaLearningError, match="^1 of 63 pictures in .* --data.strict false: ash/0.png"):
        held_out(tree, strict=True).setup("fit")


def test_many_unreadable_files_are_counted(tree: Path) -> None:
    for number in range(5):
        (tree / "birch" / f"{number}.png").write_text("not a picture")
    with pytest.warns(UserWarning) as told:
        held_out(tree).setup("fit")
    said = sorted(str(warning.message) for warning in told)
    assert "1 of 9 classes in" in said[0] and said[0].endswith(f"{LEFT_OUT}: birch (2)")
    assert (
        "5 of 63 pictures in" in said[1] and "birch/0.png, birch/1.png, birch/2.png and 2 more. The first:" in said[1]
    )


def test_a_folder_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "trees" / name).mkdir(parents=True)
        (tmp_path / "trees" / name / "1.png").write_text("not a picture")
    with pytest.raises(
        MetaLearningError, match="^2 of 2 pictures in .* cannot be read: replace them: a/1.png, b/1.png"
    ):
        episodes(tmp_path / "trees").setup("fit")


def test_empty_classes_are_named(tree: Path, split_tree: Path) -> None:
    for folder in (tree, split_tree / "val"):
        for name in ("sorb", "yew", "pine", "rowan"):
            (folder / name).mkdir()
    for data in (held_out(tree), episodes(split_tree)):
        with pytest.warns(UserWarning, match=r"4 of 13 classes .*: pine \(0\), rowan \(0\), sorb \(0\) and 1 more$"):
            data.setup("fit")
    assert not {"sorb", "yew"} & {name for names in held_out(tree).class_splits.values() for name in names}


# The cache.


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded for the cache."""
    names: list[str] = []

    def counted(source: Path, name: str) -> Image.Image:
        names.append(name)
        return open_picture(source, name)

    monkeypatch.setattr(folder_cache, "open_picture", counted)
    return names


def test_a_second_start_decodes_nothing(tree: Path, opened: list[str]) -> None:
    data = held_out(tree)
    data.prepare_data()
    assert set(opened) == {f"{name}/{number}.png" for name, count in CLASSES.items() for number in range(count)}
    opened.clear()
    again = held_out(tree, shots=1, queries=1, seed=4)  # settings of the tasks
    again.setup("fit")
    assert torch.equal(again.data.images, data.data.images)
    assert opened == []
    assert [path.name for path in (tree / "lightning_meta_cache").iterdir()] == ["trees-6x3-lanczos.images"]


def change(path: Path) -> None:
    Image.fromarray(255 - pixels("oak")[0]).save(path)


@pytest.mark.parametrize(
    ("touch", "changes"),
    [
        (lambda tree: change(tree / "oak" / "0.png"), {}),
        (lambda tree: change(tree / "oak" / "99.png"), {}),
        (lambda tree: (tree / "oak" / "0.png").unlink(), {}),
        (lambda tree: (tree / "oak" / "0.png").rename(tree / "elm" / "99.png"), {}),
        (lambda tree: os.utime(tree / "oak" / "0.png", (1, 1)), {}),
        (lambda tree: None, {"split_seed": 2}),
        (lambda tree: None, {"image_size": 5}),
        (lambda tree: None, {"channels": 1}),
        (lambda tree: None, {"resample": "box"}),
    ],
)
def test_changed_files_or_settings_are_decoded_again(
    tree: Path, opened: list[str], touch: Callable[[Path], object], changes: dict[str, Any]
) -> None:
    held_out(tree).setup("fit")
    touch(tree)
    opened.clear()
    found = held_out(tree, **changes).data.images
    assert len(set(opened)) == len(found) > 60
    fresh = held_out(tree, **changes, cache_dir=str(tree.parent / "elsewhere")).data.images
    assert torch.equal(found, fresh)


def test_pictures_are_decoded_in_parallel_and_in_order(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "elm" / "3.png").write_text("not a picture")
    with pytest.warns(UserWarning, match="elm/3.png"):
        expected = held_out(tree, cache_dir=str(tree.parent / "elsewhere")).data
    monkeypatch.setattr(folder_cache, "SERIAL", 0)
    monkeypatch.setattr(folder_cache, "_AT_ONCE", 5)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="elm/3.png"):
        found = held_out(tree).data
    assert torch.equal(found.images, expected.images) and torch.equal(found.counts, expected.counts)
    assert torch.equal(torch.random.get_rng_state(), state)  # whether there was a cache changes no training


# Settings that make no tasks.


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="data.root is .*nowhere, which cannot be read .No such file"):
        episodes(tmp_path / "nowhere").setup("fit")
    (tmp_path / "file").write_text("")
    with pytest.raises(MetaLearningError, match="data.root is .*file, which cannot be read .Not a directory"):
        episodes(tmp_path / "file").setup("fit")


def test_a_root_without_class_folders_is_refused(tree: Path) -> None:
    (tree.parent / "empty").mkdir()
    for root in (tree.parent / "empty", tree / "ash"):
        with pytest.raises(MetaLearningError, match=f"{root}/CLASS/[*].png or {root}/{{train,val,test}}/CLASS/[*].png"):
            episodes(root).setup("fit")


def test_a_class_in_two_splits_is_refused(split_tree: Path) -> None:
    write_class(split_tree / "test", "elm")
    with pytest.raises(
        MetaLearningError, match="where train and test both hold elm, but .*set data.root to .*/train, "
    ):
        episodes(split_tree).setup("fit")


def test_a_class_may_be_called_train(tree: Path) -> None:
    (tree / "ash").rename(tree / "train")
    data = held_out(tree)
    assert list(data.folders.files) == [*list(CLASSES)[1:], "train"] and data.folders.splits is None


FILES: dict[str, tuple[str, str]] = {
    "twice": ('{"train": ["ash", "elm"], "val": ["ash"]}', "names class ash twice"),
    "unknown": ("train ash\ntest a pine\ntest pine\ntest yew\ntest zelkova", "names a pine, pine, yew and 1 more, but"),
    "split": ("ash\nelm", "(unexpected split 'ash'): expected JSON such as"),
    "no name": ("train ash\ntest\n", "('' is not the name of a class)"),
    "numbers": ('{"train": [1]}', "(1 is not the name of a class)"),
    "shape": ('{"train": 3}', "which cannot be read ("),
    "broken": ('{"train": ', "which cannot be read ("),
    "binary": ("\x00\x80", "(unexpected split '"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_split_the_classes_are_refused(tree: Path, tmp_path: Path, case: str) -> None:
    content, said = FILES[case]
    (tmp_path / "split.txt").write_text(content)
    with pytest.raises(MetaLearningError, match="^data.split_file is ") as error:
        episodes(tree, split_file=str(tmp_path / "split.txt")).setup("fit")
    assert said in str(error.value)
    assert len(str(error.value)) < 500


def test_a_split_file_that_does_not_exist_is_refused(tree: Path) -> None:
    with pytest.raises(MetaLearningError, match="data.split_file is nowhere.json, which cannot be read .*No such file"):
        episodes(tree, split_file="nowhere.json").setup("fit")


def test_classes_that_the_split_file_does_not_name_are_left_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["ash", "elm", "fir"], "test": ["oak", "maple"]}')
    data = episodes(tree, split_file=str(tmp_path / "split.json"))
    with pytest.warns(UserWarning, match="split.json does not name birch, cedar, hazel and 1 more, which .*: left out"):
        data.setup("fit")
    assert data.data.names == ["ash", "elm", "fir", "maple", "oak"] and not data.has_validation()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "too many": (
        "tree",
        {"validation_classes": 6, "test_classes": 3},
        "6 and data.test_classes is 3, but .* 9 classes",
    ),
    "below none": ("tree", {"test_classes": -1}, "data.test_classes is -1, expected at least 0"),
    "size": ("tree", {"image_size": 0}, "data.image_size is 0, expected at least 1"),
    "split twice": (
        "split_tree",
        {"test_classes": 2},
        "data.test_classes is 2, but the folders of .* split the classes",
    ),
    "file and folders": ("split_tree", {"split_file": "x"}, "data.split_file is x, but the folders of .* leave it out"),
    "file and number": (
        "tree",
        {"split_file": "x", "test_classes": 2},
        "data.test_classes is 2, but x splits the classes",
    ),
    "ways": (
        "split_tree",
        {"ways": 4},
        "the validation split has 2 classes: lower data.ways, or add folders to .*/val, ",
    ),
    "no test": ("tree", {}, "the test split has 0 classes: raise data.test_classes, or set data.test_tasks to 0"),
    "one class": (
        "tree",
        {"test_classes": 8, "test_tasks": 0},
        "the train split has 1 classes: .* or data.test_classes",
    ),
    "all small": (
        "split_tree",
        {"shots": 9},
        "the train split has 0 classes: lower data.shots or data.queries, for wh",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings(f"ignore:.*{LEFT_OUT}")
def test_settings_that_make_no_tasks_are_refused(case: str, request: pytest.FixtureRequest) -> None:
    name, changes, said = REFUSED[case]
    with pytest.raises(MetaLearningError, match=said) as error:
        episodes(request.getfixturevalue(name), **changes).setup("fit")
    settings = inspect.signature(FolderEpisodes).parameters.keys()
    assert set(re.findall(r"data\.(\w+)", str(error.value))) <= settings


def test_pictures_without_training_classes_cannot_be_normalised(split_tree: Path) -> None:
    shutil.rmtree(split_tree / "train")
    episodes(split_tree).setup("test")
    with pytest.raises(MetaLearningError, match="data.normalise is true, but .* holds no training pictures"):
        episodes(split_tree, normalise=True).setup("test")


@pytest.mark.slow
def test_a_run_with_augmentation(split_tree: Path, tmp_path: Path) -> None:
    arguments = ["--data=FolderEpisodes", f"--data.root={split_tree}", "--data.image_size=6", "--data.ways=2"]
    arguments += ["--data.support_transform=RandomHorizontalFlip", "--data.support_transform.p=0.3"]
    nested = "{class_path: torchvision.transforms.v2.Compose, init_args: {transforms: [{class_path: "
    nested += "torchvision.transforms.v2.RandomCrop, init_args: {size: 6, padding: 1}}]}}"
    arguments += [f"--data.query_transform={nested}", "--data.meta_batch_size=2", "--data.test_tasks=3"]
    arguments += ["--model=MAML", "--model.backbone=Conv4", "--model.backbone.channels=3", "--model.backbone.filters=4"]
    arguments += ["--model.compile=false", "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    arguments += ["--data.validation_tasks=2", "--trainer.val_check_interval=2", "--model.inner.evaluation_steps=1"]
    assert main(["fit", *arguments, *SHORT_RUN]) == 0
    assert len(list(tmp_path.rglob("results.json"))) == 1
