"""Omniglot: the class splits, how drawings become images, how they are fetched."""

import hashlib
import io
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import Omniglot

from lightning_meta.data.files import omniglot_cache
from lightning_meta.data.omniglot import OmniglotEpisodes, OmniglotSplit, read_splits
from lightning_meta.errors import MetaLearningError
from tests.data.file_server import FileServer
from tests.data.omniglot_files import first_drawing, images


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("lake", (964, 0, 659)), ("vinyals", (1028, 172, 423)), ("finn", (1100, 100, 423)), ("nichol", (1200, 0, 423))],
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


@pytest.mark.parametrize("split", ["lake", "nichol"])
def test_splits_without_validation_classes(split: OmniglotSplit) -> None:
    assert not OmniglotEpisodes(split=split).has_validation()
    assert OmniglotEpisodes(split=split).val_dataloader() == []
    assert OmniglotEpisodes(split="finn").has_validation()
    assert not OmniglotEpisodes(split="finn", validation_tasks=0).has_validation()


# The data set itself


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def test_real_images(omniglot_root: Path, real_cache: str) -> None:
    data = OmniglotEpisodes(root=str(omniglot_root), cache_dir=real_cache).load()
    assert data.images.shape == (32460, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.counts.eq(20).all()
    assert {split: len(classes) for split, classes in data.splits.items()} == {
        "train": 1028, "validation": 172, "test": 423
    }  # fmt: skip
    characters = sorted(name for names in read_splits("vinyals").values() for name in names)
    for index in (0, 700, 963, 964, 1622):
        for drawing, path in enumerate(sorted((omniglot_root / "omniglot-py" / characters[index]).glob("*.png"))):
            expected = ImageOps.invert(Image.open(path).convert("L").resize((28, 28), Image.Resampling.LANCZOS))
            assert data.images[data.starts[index] + drawing].flatten().tolist() == list(expected.tobytes())
    mean_ink = data.images.float().mean(dim=(1, 2, 3)) / 255
    assert mean_ink.gt(0).all()
    assert mean_ink.lt(0.4).all()


def test_real_splits_name_their_own_images(omniglot_root: Path, real_cache: str) -> None:
    data = OmniglotEpisodes(root=str(omniglot_root), cache_dir=real_cache).load()
    characters = sorted(name for names in read_splits("vinyals").values() for name in names)
    for split, names in read_splits("vinyals").items():
        assert [characters[index] for index in data.splits[split]] == names


def test_real_nichol_images_are_the_binary_drawings_resized(omniglot_root: Path, real_cache: str) -> None:
    episodes = OmniglotEpisodes(
        root=str(omniglot_root), split="nichol", resample="nearest", ink=0, cache_dir=real_cache
    )
    episodes.setup("fit")
    data = episodes.data
    assert set(data.images.flatten().tolist()) == {0, 255}
    assert len(data.splits["validation"]) == 0
    first = sorted((omniglot_root / "omniglot-py/images_background/Alphabet_of_the_Magi/character01").glob("*.png"))
    for index, path in enumerate(first):
        expected = Image.open(path).resize((28, 28)).convert("L")
        assert data.images[index].flatten().tolist() == list(expected.tobytes())


# From drawing to image


def test_classes_follow_their_names(root: Path) -> None:
    data = OmniglotEpisodes(root=str(root)).load()
    assert data.images.shape == (60, 1, 28, 28)
    assert data.starts.tolist() == [0, 20, 40]
    assert {split: classes.tolist() for split, classes in data.splits.items()} == {
        "train": [0, 2], "validation": [], "test": [1]
    }  # fmt: skip


def test_validation_without_classes_keeps_whole_numbers(root: Path) -> None:
    assert OmniglotEpisodes(root=str(root)).load().splits["validation"].dtype == torch.int64


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


# Downloads


@pytest.fixture
def source(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The archives of the tiny Omniglot on a server, with their checksums."""
    for part in ("images_background", "images_evaluation"):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for path in sorted((root / "omniglot-py" / part).rglob("*.png")):
                archive.write(path, path.relative_to(root / "omniglot-py"))
        server.files[f"{part}.zip"] = stream.getvalue()
    checksums = {name.removesuffix(".zip"): hashlib.md5(file).hexdigest() for name, file in server.files.items()}
    assert checksums.keys() == Omniglot.zips_md5.keys()
    monkeypatch.setattr(Omniglot, "zips_md5", checksums)
    monkeypatch.setattr(Omniglot, "download_url_prefix", server.url.removesuffix("/"))
    return server


def test_download_when_missing(root: Path, source: FileServer) -> None:
    assert torch.equal(images(root / "new", download=True), images(root))
    assert set(source.asked) == source.files.keys()
    asked = len(source.asked)
    images(root / "new", download=True)
    assert len(source.asked) == asked
    assert sorted(path.name for path in (root / "new" / "omniglot-py").iterdir()) == [
        "images_background", "images_evaluation"
    ]  # fmt: skip


def test_only_the_missing_part_is_downloaded(root: Path, source: FileServer) -> None:
    expected = images(root)
    shutil.rmtree(root / "omniglot-py" / "images_evaluation")
    assert torch.equal(images(root, download=True), expected)
    assert set(source.asked) == {"images_evaluation.zip"}


def test_an_incomplete_part_is_left_alone(root: Path, source: FileServer) -> None:
    first_drawing(root).unlink()
    with pytest.raises(MetaLearningError, match="omniglot-py/images_background is incomplete: delete it"):
        images(root, download=True)
    assert source.asked == []


def test_nothing_is_downloaded_unasked(root: Path, source: FileServer) -> None:
    images(root, download=True)
    with pytest.raises(MetaLearningError, match="does not exist"):
        images(root / "new")
    assert source.asked == []


def test_failed_download(root: Path, source: FileServer) -> None:
    source.files["images_background.zip"] += b"more"
    with pytest.raises(MetaLearningError, match="^Omniglot: cannot download .*images_background.zip.*corrupted"):
        images(root / "new", download=True)
    assert list((root / "new" / "omniglot-py").iterdir()) == []
