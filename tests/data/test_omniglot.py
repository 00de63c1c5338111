"""Omniglot: the class splits, how drawings become images, the cache, what is said of a data set that is not whole."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from lightning_meta.data import omniglot, omniglot_cache
from lightning_meta.data.omniglot import OmniglotEpisodes, OmniglotSplit, read_splits
from lightning_meta.errors import MetaLearningError

SPLITS = {
    "train": ["images_background/Latin/character01", "images_evaluation/Angelic/character02"],
    "validation": [],
    "test": ["images_evaluation/Angelic/character01"],
}
CHARACTERS = sorted(name for names in SPLITS.values() for name in names)
LINE = (30, 20, 70, 90)  # pixels, left top right bottom


def draw_characters(root: Path) -> None:
    """Three characters of 20 drawings, black on white as the data set's."""
    for number, character in enumerate(CHARACTERS):
        folder = root / "omniglot-py" / character
        folder.mkdir(parents=True)
        for drawing in range(20):
            image = Image.new("1", (105, 105), 1)
            ImageDraw.Draw(image).line([(x + drawing, y - drawing) for x, y in (LINE[:2], LINE[2:])], 0, 2 + number)
            image.save(folder / f"{number:04}_{drawing + 1:02}.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Omniglot, its split in the place of the shipped ones, and a user's cache folder of its own."""
    monkeypatch.setattr(omniglot, "read_splits", lambda name: SPLITS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    draw_characters(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, one entry for each time that happened."""
    calls: list[int] = []
    decode = omniglot_cache._decode

    def counted(source: Path, files: list[str], rendering: omniglot_cache.Rendering) -> Tensor:
        calls.append(len(files))
        return decode(source, files, rendering)

    monkeypatch.setattr(omniglot_cache, "_decode", counted)
    return calls


def images(root: Path, **options: Any) -> Tensor:
    return OmniglotEpisodes(str(root), **options).load().images


def first_drawing(root: Path) -> Path:
    return root / "omniglot-py" / CHARACTERS[0] / "0000_01.png"


# Splits


@pytest.mark.parametrize(
    ("name", "sizes"), [("vinyals", (1028, 172, 423)), ("finn", (1100, 100, 423)), ("nichol", (1200, 0, 423))]
)
def test_splits_are_a_partition(name: OmniglotSplit, sizes: tuple[int, int, int]) -> None:
    splits = read_splits(name)
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == sizes
    everything = [character for characters in splits.values() for character in characters]
    assert len(set(everything)) == len(everything) == 1623
    assert sum(character.startswith("images_background/") for character in everything) == 964


def test_vinyals_is_the_published_list() -> None:
    digests = {
        split: hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        for split, names in read_splits("vinyals").items()
    }
    assert digests == {
        "train": "55fb4a4f5b4f8a45bce46451f717e02975d3e80cb8dd062a4f0313d04bb3d2c7",
        "validation": "978680cddffa09877dc452c14f7990a6931c424ce606a698d10f91b3f2736c77",
        "test": "cd7a4fc76e0d3b993ca34d27c28fdaaad7022606473da6c78ce24218787a9ab4",
    }


def test_finn_and_nichol_test_on_the_same_classes() -> None:
    assert read_splits("finn")["test"] == read_splits("nichol")["test"]


def test_only_nichol_has_no_validation() -> None:
    assert not OmniglotEpisodes(split="nichol").has_validation()
    assert OmniglotEpisodes(split="nichol").val_dataloader() == []
    assert OmniglotEpisodes(split="finn").has_validation()
    assert not OmniglotEpisodes(split="finn", validation_tasks=0).has_validation()


# The data set itself


@pytest.fixture(scope="module")
def real_root() -> Path:
    folder = os.environ.get("LIGHTNING_META_ROOT")
    if folder is None:
        pytest.skip("LIGHTNING_META_ROOT does not say which folder holds omniglot-py")
    return Path(folder)


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def test_real_images(real_root: Path, real_cache: str) -> None:
    data = OmniglotEpisodes(str(real_root), cache_dir=real_cache).load()
    assert data.images.shape == (32460, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.counts.eq(20).all()
    assert {split: len(classes) for split, classes in data.splits.items()} == {
        "train": 1028, "validation": 172, "test": 423
    }  # fmt: skip
    characters = sorted(name for names in read_splits("vinyals").values() for name in names)
    for index in (0, 700, 963, 964, 1622):
        for drawing, path in enumerate(sorted((real_root / "omniglot-py" / characters[index]).glob("*.png"))):
            expected = ImageOps.invert(Image.open(path).convert("L").resize((28, 28), Image.Resampling.LANCZOS))
            assert data.images[data.starts[index] + drawing].flatten().tolist() == list(expected.tobytes())
    mean_ink = data.images.float().mean(dim=(1, 2, 3)) / 255
    assert mean_ink.gt(0).all()
    assert mean_ink.lt(0.4).all()


def test_real_splits_name_their_own_images(real_root: Path, real_cache: str) -> None:
    data = OmniglotEpisodes(str(real_root), cache_dir=real_cache).load()
    characters = sorted(name for names in read_splits("vinyals").values() for name in names)
    for split, names in read_splits("vinyals").items():
        assert [characters[index] for index in data.splits[split]] == names


def test_real_nichol_images_are_the_binary_drawings_resized(real_root: Path, real_cache: str) -> None:
    episodes = OmniglotEpisodes(str(real_root), split="nichol", resample="nearest", ink=0, cache_dir=real_cache)
    episodes.setup("fit")
    data = episodes.data
    assert set(data.images.flatten().tolist()) == {0, 255}
    assert len(data.splits["validation"]) == 0
    first = sorted((real_root / "omniglot-py/images_background/Alphabet_of_the_Magi/character01").glob("*.png"))
    for index, path in enumerate(first):
        expected = Image.open(path).resize((28, 28)).convert("L")
        assert data.images[index].flatten().tolist() == list(expected.tobytes())


# From drawing to image


def test_classes_follow_their_names(root: Path) -> None:
    data = OmniglotEpisodes(str(root)).load()
    assert data.images.shape == (60, 1, 28, 28)
    assert data.starts.tolist() == [0, 20, 40]
    assert {split: classes.tolist() for split, classes in data.splits.items()} == {
        "train": [0, 2], "validation": [], "test": [1]
    }  # fmt: skip


def test_validation_without_classes_keeps_whole_numbers(root: Path) -> None:
    assert OmniglotEpisodes(str(root)).load().splits["validation"].dtype == torch.int64


def test_ink_turns_values_around(root: Path) -> None:
    assert torch.equal(images(root, ink=0), 255 - images(root, ink=1))
    assert images(root, ink=1)[:, :, 0, 0].eq(0).all()


def test_grey_has_more_than_two_values(root: Path) -> None:
    assert len(set(images(root).flatten().tolist())) > 2


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_threshold_is_an_amount_of_ink(root: Path, threshold: float) -> None:
    amount = images(root).double() / 255
    assert torch.equal(images(root, threshold=threshold), (amount > threshold).to(torch.uint8) * 255)
    assert torch.equal(images(root, threshold=threshold, ink=0), (amount <= threshold).to(torch.uint8) * 255)


def test_more_threshold_less_ink(root: Path) -> None:
    ink = [int(images(root, threshold=threshold).count_nonzero()) for threshold in (0.0, 0.3, 0.7)]
    assert ink[0] > ink[1] > ink[2] > 0


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_every_filter_is_the_one_of_its_name(root: Path, resample: omniglot_cache.Resample) -> None:
    drawing = Image.open(first_drawing(root)).convert("L")
    expected = ImageOps.invert(drawing.resize((28, 28), getattr(Image.Resampling, resample.upper())))
    assert images(root, resample=resample)[0].flatten().tolist() == list(expected.tobytes())


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 128.0])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(MetaLearningError, match=f"data.threshold is {threshold}, expected ink from 0 to below 1"):
        OmniglotEpisodes(threshold=threshold)


# Cache


def test_cache_is_reused(root: Path, decoded: list[int]) -> None:
    first = images(root)
    assert torch.equal(images(root), first)
    assert decoded == [60]
    assert [path.name for path in (root / "lightning_meta_cache").iterdir()] == ["omniglot28-lanczos-grey-ink1.pt"]


def test_cache_is_where_it_is_asked_for(root: Path, tmp_path: Path, decoded: list[int]) -> None:
    for _ in range(2):
        images(root, cache_dir=str(tmp_path / "elsewhere"))
    assert decoded == [60]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert not (root / "lightning_meta_cache").exists()


def test_preparing_leaves_nothing_to_decode(root: Path, decoded: list[int]) -> None:
    OmniglotEpisodes(str(root)).prepare_data()
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
    (folder / "omniglot28-lanczos-grey-ink0.pt").rename(folder / "omniglot28-lanczos-grey-ink1.pt")
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
    cache = root / "lightning_meta_cache" / "omniglot28-lanczos-grey-ink1.pt"
    cache.write_bytes(damage(cache.read_bytes()))
    for _ in range(2):
        assert torch.equal(images(root), whole)
    assert decoded == [60, 60]


def test_cache_that_holds_something_else_is_made_anew(root: Path, decoded: list[int]) -> None:
    images(root)
    torch.save([1, 2], root / "lightning_meta_cache" / "omniglot28-lanczos-grey-ink1.pt")
    images(root)
    assert decoded == [60, 60]


def test_read_only_root_falls_back(
    root: Path, tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(omniglot_cache, "rank_zero_info", said.append)
    (root / "lightning_meta_cache").write_text("a file, so that no folder can be made here")
    first = images(root)
    fallback = tmp_path / "user" / "lightning_meta" / "omniglot28-lanczos-grey-ink1.pt"
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
    def full_disk(cache: object, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    images(root)
    assert list((root / "lightning_meta_cache").iterdir()) == []


def test_caches_made_at_the_same_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, others = torch.save, []

    def overtaken(cache: object, stream: Any) -> None:
        monkeypatch.setattr(torch, "save", save)
        stream.write(b"half")
        others.append(images(root))
        stream.seek(0)
        save(cache, stream)

    monkeypatch.setattr(torch, "save", overtaken)
    assert torch.equal(images(root), others[0])
    assert [path.name for path in (root / "lightning_meta_cache").iterdir()] == ["omniglot28-lanczos-grey-ink1.pt"]
    assert not (tmp_path / "user").exists()
    assert torch.equal(images(root), others[0])


# What is said when something is wrong


def test_missing_data_set(root: Path) -> None:
    with pytest.raises(MetaLearningError) as error:
        images(root / "nowhere")
    message = str(error.value)
    part = root / "nowhere/omniglot-py/images_background"
    assert message.startswith(f"{part} does not exist: found 0 whole characters and 0 images")
    assert "expected 1 characters of 20 images each" in message
    assert "--data.root DIR" in message
    assert "--data.download true" in message


def test_missing_character(root: Path) -> None:
    shutil.rmtree(root / "omniglot-py" / CHARACTERS[2])
    with pytest.raises(MetaLearningError) as error:
        images(root)
    message = str(error.value)
    part = root / "omniglot-py/images_evaluation"
    assert message.startswith(f"{part} holds 1 whole characters and 20 images, expected 2 characters")
    assert f"the first that is not whole is {CHARACTERS[2]} with 0" in message
    assert "--data.root DIR" in message
    assert "--data.download true" in message


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_number_of_drawings(root: Path, change: int) -> None:
    if change < 0:
        first_drawing(root).unlink()
    else:
        shutil.copyfile(first_drawing(root), first_drawing(root).with_name("0000_21.png"))
    expected = f"the first that is not whole is {CHARACTERS[0]} with {20 + change}"
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
    with pytest.raises(MetaLearningError, match="not whole"):
        images(root)


@pytest.mark.parametrize("size", [0, 40, 80])
def test_unreadable_drawing(root: Path, size: int) -> None:
    content = first_drawing(root).read_bytes()
    first_drawing(root).write_bytes(content[:size])
    with pytest.raises(MetaLearningError) as error:
        images(root)
    assert str(error.value).startswith(f"{first_drawing(root)} is no readable image")
    assert "--data.download true" in str(error.value)
    assert not (root / "lightning_meta_cache").exists()


def pretend_learn2learn(monkeypatch: pytest.MonkeyPatch, full_omniglot: Any) -> None:
    library = SimpleNamespace(vision=SimpleNamespace(datasets=SimpleNamespace(FullOmniglot=full_omniglot)))
    monkeypatch.setattr("lightning_meta.data.learn2learn._learn2learn", lambda: library)


def test_download_when_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def full_omniglot(folder: str, download: bool) -> None:
        assert download
        asked.append(folder)
        draw_characters(Path(folder))

    pretend_learn2learn(monkeypatch, full_omniglot)
    new = root / "new"
    for _ in range(2):
        assert torch.equal(images(new, download=True), images(root))
    assert asked == [str(new)]


def test_nothing_is_downloaded_unasked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_learn2learn(monkeypatch, lambda *_, **__: pytest.fail("downloaded"))
    images(root, download=True)
    with pytest.raises(MetaLearningError, match="does not exist"):
        images(root / "new")


def test_failed_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(folder: str, download: bool) -> None:
        raise OSError("Name or service not known")

    pretend_learn2learn(monkeypatch, no_network)
    with pytest.raises(MetaLearningError, match="Name or service not known") as error:
        images(root / "new", download=True)
    assert f"into {root / 'new' / 'omniglot-py'}" in str(error.value)
