"""Files of folders that cannot be read, and the cache of those that can."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_meta.data.files import folder_cache
from lightning_meta.data.files.pictures import open_picture
from lightning_meta.errors import MetaLearningError
from tests.data.folder_files import CLASSES, LEFT_OUT, episodes, held_out, pixels


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
    "bomb": (lambda path: path.write_bytes(bomb()), "ash/0.png has more than 50,000,000 pixels"),
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
    assert said[0] == f"1 of 9 classes {LEFT_OUT}: birch (2)"
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
