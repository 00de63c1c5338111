"""Colour data sets on small files of their layouts, beside learn2learn's own readers of the same files."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from lightning_meta.data.drawing import images
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.files import image_cache
from lightning_meta.data.learn2learn import _learn2learn
from lightning_meta.errors import MetaLearningError
from tests.data.rgb_files import EACH, KINDS, Made
from tests.data.tiny_episodes import assert_same


def test_images_and_classes_are_those_of_learn2learn(made: Made) -> None:
    episodes, root = made
    data = episodes(root=str(root)).load()
    assert data.images.dtype == torch.uint8 and data.counts.tolist() == [EACH] * 7
    assert [data.splits[split].tolist() for split in SPLITS] == [[0, 1, 2], [3, 4], [5, 6]]
    theirs = {episodes.title: name for episodes, _, name in KINDS.values()}[episodes.title]
    for split in SPLITS:
        reference = getattr(_learn2learn().vision.datasets, theirs)(str(root), mode=split)
        by_label: dict[int, list[torch.Tensor]] = {}
        for image, label in (reference[row] for row in range(len(reference))):
            tensor = image.to(torch.uint8) if isinstance(image, torch.Tensor) else pil_to_tensor(image)
            by_label.setdefault(int(label), []).append(tensor)
        for place, label in zip(data.splits[split], sorted(by_label), strict=True):
            start = data.starts[place]
            assert torch.equal(data.images[start : start + EACH], torch.stack(by_label[label])), (split, label)


def test_second_start_reads_the_cache_alone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    episodes(root=str(root)).prepare_data()
    monkeypatch.setattr(episodes, "read", None)
    data = episodes(root=str(root)).load()
    assert len(data.images) == 7 * EACH and data.moments is None
    with pytest.raises(TypeError):
        episodes(root=str(root), cache_dir=str(root / "elsewhere")).load()


def test_damaged_cache_is_made_anew(made: Made) -> None:
    episodes, root = made
    before = episodes(root=str(root)).load()
    (cache,) = (root / "lightning_meta_cache").iterdir()
    whole = cache.read_bytes()
    for damage in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], whole[: len(whole) // 2], b""):
        cache.write_bytes(damage)
        assert torch.equal(episodes(root=str(root)).load().images, before.images)
        assert cache.read_bytes() == whole


def test_normalised_training_images_have_mean_0_and_deviation_1(made: Made) -> None:
    episodes, root = made
    plain = episodes(root=str(root), ways=3, shots=1, queries=EACH - 1)
    episode = plain.draw("train", torch.arange(1))  # all training images
    data = episodes(root=str(root), ways=3, shots=1, queries=EACH - 1, normalise=True)
    normalised = data.draw("train", torch.arange(1))
    images = torch.cat([normalised.support_x[0], normalised.query_x[0]]).transpose(0, 1).flatten(1)  # (C, pixels)
    torch.testing.assert_close(images.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(1, unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    assert data.data.moments is not None
    mean, deviation = data.data.moments
    torch.testing.assert_close(normalised.query_x * deviation + mean, episode.query_x)
    assert episode.query_x.min() >= 0 and 0.5 < episode.query_x.max() <= 1


def test_mapped_images_equal_those_in_memory(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    settings: dict[str, Any] = {"ways": 2, "queries": 2, "test_tasks": 3, "normalise": True}
    expected = episodes(root=str(root), **settings).draw("test", torch.arange(3))
    for module in (image_cache, images):
        monkeypatch.setattr(module, "MAX_IN_MEMORY", 0)
    data = episodes(root=str(root), num_workers=1, **settings)
    (from_worker,) = data.test_dataloader()
    assert_same(from_worker, expected)
    assert_same(data.draw("test", torch.arange(3)), expected)
    sent = pickle.loads(pickle.dumps(data))
    assert all(len(pickle.dumps(item)) < 10_000 for item in (data, sent))  # the images are not sent
    assert sent._data is None and copy.copy(data)._data is data._data
    assert_same(sent.draw("test", torch.arange(3)), expected)


def test_images_in_memory_go_with_a_copy(made: Made) -> None:
    episodes, root = made
    data = episodes(root=str(root), ways=2, queries=2)
    data.setup("test")
    other = pickle.loads(pickle.dumps(data))
    assert_same(other.draw("test", torch.arange(2)), data.draw("test", torch.arange(2)))
    assert other._data is not None


def test_large_sets_need_a_cache(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, root = made
    monkeypatch.setattr(image_cache, "MAX_IN_MEMORY", 0)
    for place in (root / "lightning_meta_cache", tmp_path / "user"):
        place.write_text("a file, so that no folder can be made here")
    with pytest.raises(MetaLearningError, match="--data.cache_dir DIR"):
        episodes(root=str(root)).load()
