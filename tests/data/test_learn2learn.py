"""Episodes from learn2learn's tasksets."""

import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from torch.utils.data import TensorDataset

from lightning_meta.data.drawing import data_module as base
from lightning_meta.data.leaks import find_leaks
from lightning_meta.data.learn2learn import TasksetEpisodes, _learn2learn
from lightning_meta.episode import Episode, InnerBatches, Split
from lightning_meta.errors import MetaLearningError

learn2learn = _learn2learn()
transforms = learn2learn.data.transforms

CLASSES, ROWS = 12, 8


@pytest.fixture
def dataset() -> Any:
    """12 classes of 8 rows; a row of 3 numbers starts with its class and its place in the data set."""
    labels = torch.arange(CLASSES).repeat_interleave(ROWS)
    x = torch.stack([labels, torch.arange(CLASSES * ROWS), torch.zeros_like(labels)], dim=1).float()
    return learn2learn.data.MetaDataset(TensorDataset(x, labels))


def taskset(dataset: Any, ways: int = 3, rows: int = 5, num_tasks: int = -1, loaded: Any = None) -> Any:
    """Tasks as learn2learn's benchmarks make them, but with the rows in random order."""

    def shuffled(description: list[Any]) -> list[Any]:
        return random.sample(description, len(description))

    return learn2learn.data.Taskset(
        dataset,
        [
            transforms.FusedNWaysKShots(dataset, n=ways, k=rows),
            transforms.LoadData(dataset if loaded is None else loaded),
            transforms.RemapLabels(dataset),
            shuffled,
        ],
        num_tasks=num_tasks,
    )


def episodes(train: Any, **arguments: Any) -> TasksetEpisodes:
    return TasksetEpisodes(train=train, **{"ways": 3, "shots": 2, "queries": 3, **arguments})


def same(first: Episode, second: Episode) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Noisy(torch.utils.data.Dataset[Any]):
    """Rows that are augmented with draws from all three global generators."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.dataset[item]
        return x + random.random() + np.random.random() + torch.rand(3), y


@pytest.mark.parametrize("num_tasks", [-1, 4])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_task_depends_on_its_number_alone(dataset: Any, num_tasks: int, split: Split) -> None:
    def fresh() -> TasksetEpisodes:
        noisy = taskset(dataset, num_tasks=num_tasks, loaded=Noisy(dataset))
        return episodes(noisy if split == "train" else None, test=noisy if split == "test" else None)

    straight = fresh().draw(split, torch.arange(4))
    backwards, elsewhere = fresh(), fresh()
    for number in (3, 1, 0, 2):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)
        alone = backwards.draw(split, torch.tensor([number]))
        assert same(alone, Episode(*(tensor[number : number + 1] for tensor in straight)))
    assert same(elsewhere.draw(split, torch.tensor([2, 0])), Episode(*(tensor[[2, 0]] for tensor in straight)))
    assert not torch.equal(straight.support_x[0], straight.support_x[1])


def test_seeds_and_splits_have_tasks_of_their_own(dataset: Any) -> None:
    data = episodes(taskset(dataset), validation=taskset(dataset))
    numbers = torch.arange(3)
    with pytest.warns(UserWarning, match="training tasks"):
        first = data.draw("train", numbers)
    assert not torch.equal(first.support_x, data.draw("validation", numbers).support_x)
    assert not torch.equal(first.support_x, episodes(taskset(dataset), seed=1).draw("train", numbers).support_x)


def test_a_finite_taskset_repeats_its_tasks(dataset: Any) -> None:
    data = episodes(taskset(dataset, num_tasks=4))
    first, second = data.draw("train", torch.arange(4)), data.draw("train", torch.arange(4, 8))
    assert torch.equal(first.support_x, second.support_x)
    assert torch.equal(second.task_ids, torch.arange(4, 8))
    assert not torch.equal(first.support_x[0], first.support_x[3])


def test_global_generators_are_left_alone(dataset: Any) -> None:
    def state() -> tuple[Any, ...]:
        return (
            random.getstate(),
            np.random.get_state(legacy=False)["state"]["key"].tolist(),
            torch.get_rng_state().tolist(),
        )

    data = episodes(taskset(dataset, loaded=Noisy(dataset)), test=taskset(dataset))
    before = state()
    with pytest.warns(UserWarning, match="training tasks"):
        data.setup("test")
    data.draw("train", torch.arange(3))
    assert state() == before


def test_tasks_are_cut_class_by_class(dataset: Any) -> None:
    data = episodes(taskset(dataset, rows=7), train_shots=4, train_queries=1)
    data.connect(InnerBatches(steps=2, size=6), InnerBatches())
    episode = data.draw("train", torch.arange(5))
    assert episode.support_x.shape == (5, 12, 3) and episode.query_x.shape == (5, 3, 3)
    assert episode.support_y.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 5
    assert episode.query_y.tolist() == [[0, 1, 2]] * 5
    assert episode.inner_order.flatten(1).sort().values.tolist() == [list(range(12))] * 5
    classes = episode.support_x[..., 0].unflatten(1, (3, 4))
    assert (classes == classes[..., :1]).all()
    assert torch.equal(classes[..., 0], episode.query_x[..., 0])
    assert all(len(set(task)) == 3 for task in classes[..., 0].tolist())
    places = torch.cat([episode.support_x[..., 1], episode.query_x[..., 1]], dim=1)
    assert all(len(set(task)) == 15 for task in places.tolist())


def test_reptile_needs_no_queries(dataset: Any) -> None:
    episode = episodes(taskset(dataset), train_queries=0).draw("train", torch.arange(2))
    assert episode.query_x.shape == (2, 0, 3) and episode.query_y.shape == (2, 0)


def test_no_tasks_have_the_shapes_of_tasks(dataset: Any) -> None:
    data = episodes(taskset(dataset))
    none, one = data.draw("train", torch.arange(0)), data.draw("train", torch.arange(1))
    assert [tensor.shape for tensor in none] == [(0, *tensor.shape[1:]) for tensor in one]
    assert [tensor.dtype for tensor in none] == [tensor.dtype for tensor in one]
    assert data.outputs == 3


def test_worker_processes_draw_the_same(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "EVALUATION_BATCH", 1)
    plain, forked = (
        episodes(None, test=taskset(dataset), test_tasks=5, meta_batch_size=2, num_workers=workers)
        for workers in (0, 1)
    )
    batches = list(zip(plain.test_dataloader(), forked.test_dataloader(), strict=True))
    assert [first.tasks for first, _ in batches] == [2, 2, 1]
    assert all(same(first, second) for first, second in batches)


def test_shared_classes_are_counted(dataset: Any) -> None:
    def part(*labels: int) -> Any:
        return taskset(learn2learn.data.FilteredMetaDataset(dataset, list(labels)))

    data = episodes(part(0, 1, 2, 3, 4), validation=part(4, 5, 6, 7), test=part(8, 9, 10, 11))
    with pytest.warns(UserWarning) as caught:
        data.setup("fit")
    assert [str(warning.message) for warning in caught] == [
        "the given tasksets: 1 of 4 classes seen in 300 validation tasks are also seen in 300 training tasks"
    ]
    data.setup("test")  # warns once


def test_equal_labels_of_different_data_are_not_shared(dataset: Any) -> None:
    other = learn2learn.data.MetaDataset(TensorDataset(torch.zeros(60, 3), torch.arange(60) // 10))
    union = learn2learn.data.UnionMetaDataset([dataset, other])
    data = episodes(taskset(dataset), validation=taskset(other), test=taskset(union))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("fit")


def test_mistakes_are_named(dataset: Any) -> None:
    with pytest.raises(MetaLearningError, match="benchmark is None, with tasksets given for no split"):
        TasksetEpisodes()
    with pytest.raises(MetaLearningError, match="not both"):
        episodes(taskset(dataset), benchmark="omniglot")
    with pytest.raises(MetaLearningError, match="'minimagenet', expected one of .*mini-imagenet, omniglot"):
        TasksetEpisodes(benchmark="minimagenet").setup("fit")
    with pytest.raises(MetaLearningError, match="no validation taskset.*data.validation_tasks to 0"):
        episodes(taskset(dataset)).setup("fit")
    with pytest.raises(MetaLearningError, match="no test taskset"):
        episodes(taskset(dataset)).setup("test")
    with pytest.raises(MetaLearningError, match="2 shots . 3 queries = 5 rows of a class.*one with 4: .*train_shots"):
        episodes(taskset(dataset, rows=4), validation_tasks=0).setup("fit")
    with pytest.raises(MetaLearningError, match="data.ways is 3, but a task of the train taskset has 2 classes"):
        episodes(taskset(dataset, ways=2), validation_tasks=0).setup("fit")
    with pytest.raises(MetaLearningError, match="cannot draw a train task of 3 ways"):
        episodes(taskset(dataset, ways=CLASSES + 1), validation_tasks=0).setup("fit")


def offline(*_: Any, **__: Any) -> None:
    raise requests.ConnectionError("no network")


def test_a_benchmark_without_its_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(requests.Session, "request", offline)
    with pytest.raises(MetaLearningError, match="nor download the data of .*mini-imagenet.*no network.*set data.root"):
        TasksetEpisodes(benchmark="mini-imagenet", root=str(tmp_path)).prepare_data()


def test_validating_on_nothing_is_refused(dataset: Any) -> None:
    with pytest.raises(MetaLearningError, match="no validation tasks"):
        TasksetEpisodes(ways=3, train=taskset(dataset), test=taskset(dataset), validation_tasks=0).setup("validate")


def test_without_learn2learn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "learn2learn", None)
    with pytest.raises(MetaLearningError) as error:
        TasksetEpisodes(benchmark="omniglot", root=str(tmp_path)).prepare_data()
    assert str(error.value).startswith("TasksetEpisodes needs learn2learn")
    assert str(error.value).endswith(': pip install "lightning-meta[learn2learn]"')


@pytest.mark.slow
def test_importing_the_module_does_not_import_learn2learn() -> None:
    program = (
        "import sys, lightning_meta.data.learn2learn as module, jsonargparse\n"
        "parser = jsonargparse.ArgumentParser()\n"
        "parser.add_class_arguments(module.TasksetEpisodes, 'data')\n"
        "parser.format_help(), parser.parse_args(['--data.benchmark=omniglot'])\n"
        "print('learn2learn' in sys.modules, 'gym' in sys.modules)\n"
        "module._learn2learn()\n"
        "print('learn2learn' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False False\nTrue\n", "")


@pytest.mark.filterwarnings("ignore:the given tasksets")
def test_the_leak_check_takes_tasksets_whose_classes_are_apart(dataset: Any) -> None:
    def part(*labels: int) -> Any:
        return taskset(learn2learn.data.FilteredMetaDataset(dataset, list(labels)))

    apart = {"validation": part(4, 5, 6, 7), "test": part(8, 9, 10, 11)}
    assert not [finding for finding in find_leaks(episodes(part(0, 1, 2, 3), **apart), 20) if finding.leaks]
    (leak, *_) = find_leaks(episodes(part(0, 1, 2, 3, 4), **apart), 20)
    assert leak.leaks
    assert leak.examples == ("train and validation share 1 of 4 classes: label 4 of data set 0",)
