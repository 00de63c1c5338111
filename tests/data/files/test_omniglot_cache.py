"""Omniglot's cache, and what is said of a data set that is incomplete."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta.data.files import image_cache
from lightning_meta.data.omniglot import OmniglotEpisodes
from lightning_meta.errors import MetaLearningError
from tests.data.omniglot_files import CHARACTERS, first_drawing, images


def test_cache_is_reused(root: Path, decoded: list[int]) -> None:
    first = images(root)
    assert torch.equal(images(root), first)
    assert decoded == [60]
    assert [path.name for path in (root / "lightning_meta_cache").iterdir()] == ["omniglot28-lanczos-grey-ink1.images"]


def test_cache_is_where_it_is_asked_for(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    for _ in range(2):
        images(root, cache_dir=str(tmp_path / "elsewhere"))
    assert decoded == [60]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert not (root / "lightning_meta_cache").exists()


def test_preparing_leaves_nothing_to_decode(root: Path, decoded: list[int]) -> None:
    OmniglotEpisodes(root=str(root)).prepare_data()
    images(root)
    assert decoded == [60]


@pytest.mark.parametrize(
    "options", [{"ink": 0}, {"threshold": 0.5}, {"threshold": 0.25}, {"resample": "nearest"}], ids=str
)
def test_every_setting_has_its_own_cache(root: Path, decoded: list[int], options: dict[str, Any]) -> None:
    grey, other = images(root), images(root, **options)
    assert not torch.equal(grey, other)
    assert torch.equal(images(root), grey)
    assert torch.equal(images(root, **options), other)
    assert decoded == [60, 60]


def test_cache_of_other_settings_under_the_name_is_not_taken(root: Path, decoded: list[int]) -> None:
    images(root, ink=0)
    folder = root / "lightning_meta_cache"
    (folder / "omniglot28-lanczos-grey-ink0.images").rename(folder / "omniglot28-lanczos-grey-ink1.images")
    assert images(root)[:, :, 0, 0].eq(0).all()
    assert decoded == [60, 60]


def test_changed_drawing_is_decoded_anew(root: Path, decoded: list[int]) -> None:
    before = images(root)
    shutil.copyfile(root / "omniglot-py" / CHARACTERS[2] / "0002_20.png", first_drawing(root))
    after = images(root)
    assert decoded == [60, 60]
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


def test_touched_and_renamed_drawings_are_decoded_anew(root: Path, decoded: list[int]) -> None:
    images(root)
    os.utime(first_drawing(root), ns=(1, 1))
    images(root)
    last = root / "omniglot-py" / CHARACTERS[2] / "0002_20.png"
    last.rename(last.with_name("0002_21.png"))
    images(root)
    assert decoded == [60, 60, 60]


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[: len(content) // 2], lambda content: b"no cache", flip_a_byte],
    ids=["empty", "truncated", "something else", "one byte"],
)
def test_damaged_cache_is_made_anew(root: Path, decoded: list[int], damage: Any) -> None:
    whole = images(root)
    cache = root / "lightning_meta_cache" / "omniglot28-lanczos-grey-ink1.images"
    cache.write_bytes(damage(cache.read_bytes()))
    for _ in range(2):
        assert torch.equal(images(root), whole)
    assert decoded == [60, 60]


def test_cache_that_holds_something_else_is_made_anew(root: Path, decoded: list[int]) -> None:
    images(root)
    torch.save([1, 2], root / "lightning_meta_cache" / "omniglot28-lanczos-grey-ink1.images")
    images(root)
    assert decoded == [60, 60]


def test_read_only_root_falls_back(
    root: Path, tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(image_cache, "rank_zero_info", said.append)
    (root / "lightning_meta_cache").write_text("a file, so that no folder can be made here")
    first = images(root)
    fallback = tmp_path / "user" / "lightning_meta" / "omniglot28-lanczos-grey-ink1.images"
    assert fallback.is_file()
    assert any(str(fallback) in line for line in said)
    assert torch.equal(images(root), first)
    assert decoded == [60]


def test_no_cache_anywhere_still_loads(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    (root / "lightning_meta_cache").write_text("")
    (tmp_path / "user").write_text("")
    assert torch.equal(images(root), images(root))
    assert decoded == [60, 60]


def test_failed_write_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    images(root)
    assert list((root / "lightning_meta_cache").iterdir()) == []


def test_caches_made_at_the_same_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, others = os.fsync, []

    def overtaken(file: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        others.append(images(root))
        sync(file)

    monkeypatch.setattr(os, "fsync", overtaken)
    assert torch.equal(images(root), others[0])
    assert [path.name for path in (root / "lightning_meta_cache").iterdir()] == ["omniglot28-lanczos-grey-ink1.images"]
    assert not (tmp_path / "user").exists()
    assert torch.equal(images(root), others[0])


# What is said when something is wrong


def test_missing_data_set(root: Path) -> None:
    with pytest.raises(MetaLearningError) as error:
        images(root / "nowhere")
    message = str(error.value)
    part = root / "nowhere/omniglot-py/images_background"
    assert message.startswith(f"{part} does not exist: found 0 complete characters and 0 images")
    assert "expected 1 characters of 20 images each" in message
    assert "--data.root DIR" in message
    assert "--data.download true" in message


def test_missing_character(root: Path) -> None:
    shutil.rmtree(root / "omniglot-py" / CHARACTERS[2])
    with pytest.raises(MetaLearningError) as error:
        images(root)
    message = str(error.value)
    part = root / "omniglot-py/images_evaluation"
    assert message.startswith(f"{part} holds 1 complete characters and 20 images, expected 2 characters")
    assert f"the first that differs is {CHARACTERS[2]} with 0" in message
    assert f"delete {part} and download it with --data.download true" in message
    assert "--data.root DIR" in message
    assert "--data.download true" in message


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_number_of_drawings(root: Path, change: int) -> None:
    if change < 0:
        first_drawing(root).unlink()
    else:
        shutil.copyfile(first_drawing(root), first_drawing(root).with_name("0000_21.png"))
    expected = f"the first that differs is {CHARACTERS[0]} with {20 + change}"
    with pytest.raises(MetaLearningError, match=expected):
        images(root)


def test_link_to_nowhere_is_no_drawing(root: Path) -> None:
    first_drawing(root).unlink()
    first_drawing(root).symlink_to(root / "nowhere.png")
    with pytest.raises(MetaLearningError, match=f"{CHARACTERS[0]} with 19"):
        images(root)


def test_removed_drawing_is_noticed_in_spite_of_a_cache(root: Path) -> None:
    images(root)
    first_drawing(root).unlink()
    with pytest.raises(MetaLearningError, match=f"{CHARACTERS[0]} with 19"):
        images(root)


@pytest.mark.parametrize("size", [0, 40, 80])
def test_unreadable_drawing(root: Path, size: int) -> None:
    content = first_drawing(root).read_bytes()
    first_drawing(root).write_bytes(content[:size])
    with pytest.raises(MetaLearningError) as error:
        images(root)
    assert str(error.value).startswith(f"{first_drawing(root)} is not a readable image")
    assert "--data.download true" in str(error.value)
    assert list((root / "lightning_meta_cache").iterdir()) == []
