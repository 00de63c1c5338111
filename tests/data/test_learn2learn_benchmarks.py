"""learn2learn's benchmarks: what their splits share, and that their pickles run no code."""

import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from lightning_meta.data.leaks import find_leaks
from lightning_meta.data.learn2learn import TasksetEpisodes, _learn2learn
from lightning_meta.errors import MetaLearningError
from tests.data.rgb_files import make

learn2learn = _learn2learn()


@pytest.fixture(scope="module")
def linked_root(omniglot_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The extracted data behind links, as learn2learn writes its bookkeeping beside them."""
    root = tmp_path_factory.mktemp("data")
    (root / "omniglot-py").mkdir()
    for folder in ("images_background", "images_evaluation"):
        (root / "omniglot-py" / folder).symlink_to(omniglot_root / "omniglot-py" / folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets.Omniglot, "_check_integrity", lambda self: True)  # there are no zip files
        yield root


def test_the_omniglot_benchmark_shares_classes(linked_root: Path) -> None:
    data = TasksetEpisodes(benchmark="omniglot", root=str(linked_root), ways=5, shots=1, queries=2)
    with pytest.warns(UserWarning) as caught:
        data.setup("test")
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    for message, split in zip(messages, ("validation", "test"), strict=True):
        shared, seen = (int(word) for word in message.split() if word.isdigit() and word != "300")
        assert message == (
            f"learn2learn's benchmark 'omniglot': {shared} of {seen} classes seen in 300 {split} tasks "
            "are also seen in 300 training tasks"
        )
        # 1,500 draws from all 1,623 classes are expected to see 979 classes, 590 of them in both splits
        assert 900 < seen < 1050 and 500 < shared < 700
    episode = data.draw("test", torch.arange(2))
    assert episode.support_x.shape == (2, 5, 1, 28, 28) and episode.query_x.shape == (2, 10, 1, 28, 28)
    assert episode.support_x.min() >= 0 and 0.5 < episode.support_x.max() <= 1

    random.seed(5)
    with pytest.warns(UserWarning, match="omniglot"):
        again = TasksetEpisodes(benchmark="omniglot", root=str(linked_root), ways=5, shots=1, queries=2).tasksets
    with pytest.warns(UserWarning, match="omniglot"):
        other = TasksetEpisodes(benchmark="omniglot", root=str(linked_root), seed=1).tasksets
    assert data.tasksets["train"].dataset.labels == again["train"].dataset.labels
    assert data.tasksets["train"].dataset.labels != other["train"].dataset.labels


class Runs:
    """Pickles as a call that leaves a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.touch, (self.folder / "ran",)


@pytest.mark.filterwarnings("ignore:learn2learn's benchmark")
@pytest.mark.parametrize(
    ("benchmark", "kind", "files"),
    [
        ("mini-imagenet", "mini-ImageNet", ["mini-imagenet-cache-train.pkl", "mini-imagenet-bookkeeping-test.pkl"]),
        (
            "tiered-imagenet",
            "tiered-ImageNet",
            [f"tiered-imagenet/val_{part}.pkl" for part in ("images_png", "labels")],
        ),
        ("fc100", "FC100", ["FC100_test.pickle", "fc100-bookkeeping-train.pkl"]),
    ],
)
def test_pickles_of_the_benchmarks_are_data_alone(
    benchmark: str, kind: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = make(kind, tmp_path, monkeypatch)
    (root / "processed").mkdir(exist_ok=True)

    def data() -> TasksetEpisodes:
        return TasksetEpisodes(benchmark=benchmark, root=str(root), ways=2, shots=1, queries=2)

    for _ in range(2):  # the second time from the bookkeeping that learn2learn wrote
        episode = data().draw("test", torch.arange(2))
        assert episode.query_x.shape[:2] == (2, 4)
        assert episode.query_x.min() >= 0 and episode.query_x.max() <= 1
    for file in files:
        content = (root / file).read_bytes()
        (root / file).write_bytes(pickle.dumps(Runs(tmp_path)))
        with pytest.raises(MetaLearningError, match=f"benchmark '{benchmark}': .*{file} asks for pathlib.*not called"):
            data().prepare_data()
        (root / file).write_bytes(content)
    assert not (tmp_path / "ran").exists()


def test_the_bookkeeping_of_omniglot_is_data_alone(linked_root: Path, tmp_path: Path) -> None:
    path = linked_root / "omniglot-bookkeeping.pkl"
    content = path.read_bytes() if path.exists() else None
    path.write_bytes(pickle.dumps(Runs(tmp_path)))
    with pytest.raises(MetaLearningError, match="'omniglot': .*/omniglot-bookkeeping.pkl asks for pathlib"):
        TasksetEpisodes(benchmark="omniglot", root=str(linked_root)).prepare_data()
    assert not (tmp_path / "ran").exists()
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.filterwarnings("ignore:learn2learn's benchmark")
def test_the_leak_check_reports_what_the_omniglot_benchmark_shares(linked_root: Path) -> None:
    data = TasksetEpisodes(benchmark="omniglot", root=str(linked_root), ways=5, shots=1, queries=2, meta_batch_size=4)
    findings = {finding.what: finding for finding in find_leaks(data, tasks=40)}
    leaks = {what for what, finding in findings.items() if finding.leaks}
    assert leaks == {"classes in two splits, by name", "pictures in tasks of two splits"}
    named = findings["classes in two splits, by name"].examples
    shared, seen = map(int, re.findall(r"train and test share (\d+) of (\d+) classes", " ".join(named))[0])
    assert 900 < seen < 1050 and 500 < shared < 700  # of what 300 tasks of each split use
