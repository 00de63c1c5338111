"""The sampler that all image data share, on images whose pixels say their class, their drawing and their turn."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_meta.data.drawing.images import ImageEpisodes
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.episode import Episode, Split
from tests.data.tiny_episodes import CLASSES, COUNTS, MARK, SPLITS, TinyEpisodes, assert_same, assert_uniform

properties = settings(deadline=None, max_examples=25, derandomize=True)
split_names = st.sampled_from(SPLITS)
turn_settings = st.sampled_from(["none", "classes", "tasks"])


class Seen(NamedTuple):
    """What the pixels of a task say, each (tasks, ways, images of a class)."""

    classes: Tensor
    drawings: Tensor
    turns: Tensor


def read(x: Tensor, ways: int) -> Seen:
    """Read images (tasks, ways * images of a class, 1, 2, 2)."""
    pixels = (x * 255).round().long()[:, :, 0]
    upright = torch.stack([pixels.rot90(-turn, (-2, -1)) for turn in range(4)])  # (4, tasks, rows, 2, 2)
    turns = (upright[..., 1, 1] == MARK).long().argmax(0)
    straight = upright.gather(0, turns[None, ..., None, None].expand(1, *pixels.shape))[0]
    return Seen(*(seen.unflatten(1, (ways, -1)) for seen in (straight[..., 0, 0], straight[..., 0, 1], turns)))


def read_both(data: ImageEpisodes, split: Split, tasks: int) -> tuple[Seen, Seen]:
    episode = data.draw(split, torch.arange(tasks))
    return read(episode.support_x, data.ways), read(episode.query_x, data.ways)


@properties
@given(split=split_names, rotations=turn_settings, seed=st.integers(0, 2**40), ways=st.integers(2, 5))
def test_a_task_has_distinct_classes_of_its_split_and_disjoint_images(
    split: Split, rotations: str, seed: int, ways: int
) -> None:
    data = TinyEpisodes(seed=seed, ways=ways, rotations=rotations)
    support, query = read_both(data, split, 20)
    turned = support.classes * 4 + (support.turns if rotations == "classes" else 0)
    for task in range(20):
        assert set(support.classes[task].flatten().tolist()) <= set(CLASSES[split].tolist())
        assert len(turned[task, :, 0].unique()) == ways
        for way in range(ways):
            drawings = torch.cat([support.drawings[task, way], query.drawings[task, way]])
            assert len(drawings.unique()) == 5
            assert drawings.max() < COUNTS[support.classes[task, way, 0]]


@properties
@given(split=split_names, ways=st.integers(2, 5), shots=st.integers(1, 3), queries=st.integers(1, 3))
def test_rows_are_sorted_class_by_class_and_labels_belong_to_them(
    split: Split, ways: int, shots: int, queries: int
) -> None:
    episode = TinyEpisodes(ways=ways, shots=shots, queries=queries).draw(split, torch.arange(7))
    support, query = read(episode.support_x, ways), read(episode.query_x, ways)
    assert episode.support_x.shape == (7, ways * shots, 1, 2, 2) and episode.support_x.dtype == torch.float32
    assert episode.query_x.shape == (7, ways * queries, 1, 2, 2) and episode.query_x.dtype == torch.float32
    assert torch.equal(episode.support_y, torch.arange(ways).repeat_interleave(shots).expand(7, -1))
    assert torch.equal(episode.query_y, torch.arange(ways).repeat_interleave(queries).expand(7, -1))
    assert (support.classes == support.classes[:, :, :1]).all() and (query.classes == support.classes[:, :, :1]).all()


def test_training_may_have_shots_and_queries_of_its_own() -> None:
    data = TinyEpisodes(shots=1, queries=1, train_shots=4, train_queries=0)
    train, test = data.draw("train", torch.arange(2)), data.draw("test", torch.arange(2))
    assert (train.support_x.shape[1], train.query_x.shape[1]) == (12, 0)
    assert (test.support_x.shape[1], test.query_x.shape[1]) == (3, 3)


def test_every_class_gets_every_label_and_every_image_every_place() -> None:
    tasks = 6000
    support, query = read_both(TinyEpisodes(), "train", tasks)
    classes = support.classes[:, :, 0] - 3  # the split begins at class 3
    counts = torch.stack([torch.bincount(classes[:, label], minlength=6) for label in range(3)])
    assert_uniform(counts)
    drawings = torch.cat([support.drawings, query.drawings], -1)[COUNTS[support.classes[:, :, 0]] == 7]  # (n, 5)
    assert_uniform(torch.stack([torch.bincount(drawings[:, place], minlength=7) for place in range(5)]))


@properties
@given(split=split_names, numbers=st.lists(st.integers(0, 2**40), min_size=1, max_size=8), rotations=turn_settings)
def test_a_task_is_the_same_in_any_company(split: Split, numbers: list[int], rotations: str) -> None:
    data = TinyEpisodes(rotations=rotations)
    together = data.draw(split, torch.tensor(numbers))
    assert together.task_ids.tolist() == numbers
    for place, number in enumerate(numbers):
        same = Episode(*(tensor[place : place + 1] for tensor in together))
        assert_same(same, data.draw(split, torch.tensor([number])))


def test_seeds_splits_and_numbers_make_different_tasks() -> None:
    numbers = torch.arange(50)
    data = TinyEpisodes()
    first = data.draw("train", numbers).support_x
    assert not torch.equal(first, TinyEpisodes(seed=1).draw("train", numbers).support_x)
    assert not torch.equal(first, data.draw("train", numbers + 50).support_x)
    streams = [TaskRandom(0, split, numbers).bits(4) for split in SPLITS]
    bits = torch.stack([*streams, TaskRandom(1, "train", numbers).bits(4)])
    assert len(bits.unique()) == bits.numel()


@properties
@given(split=split_names, rotations=turn_settings)
def test_no_numbers_make_an_empty_episode(split: Split, rotations: str) -> None:
    data = TinyEpisodes(rotations=rotations)
    empty, one = data.draw(split, torch.arange(0)), data.draw(split, torch.arange(1))
    for nothing, something in zip(empty, one, strict=True):
        assert nothing.shape == (0, *something.shape[1:]) and nothing.dtype == something.dtype


def test_rotated_classes_are_further_classes_in_training_alone() -> None:
    data = TinyEpisodes(rotations="classes", ways=24)
    support, query = read_both(data, "train", 10)
    pairs = support.classes[:, :, 0] * 4 + support.turns[:, :, 0]
    assert torch.equal(pairs.sort(1).values, torch.arange(12, 36).expand(10, -1))  # 4 turns of the classes 3 to 8
    assert (query.turns == support.turns[:, :, :1]).all()
    data.ways = 5
    for split in ("validation", "test"):
        assert all((seen.turns == 0).all() for seen in read_both(data, split, 20))


@pytest.mark.parametrize("split", SPLITS)
def test_rotated_tasks_turn_each_class_as_a_whole_in_every_split(split: Split) -> None:
    support, query = read_both(TinyEpisodes(rotations="tasks"), split, 3000)
    turns = support.turns[:, :, :1]
    assert (support.turns == turns).all() and (query.turns == turns).all()
    assert_uniform(torch.bincount((turns[:, 0] * 4 + turns[:, 1]).flatten(), minlength=16))  # classes turn on their own


def test_the_order_in_the_episode_is_what_the_learner_connected() -> None:
    data = TinyEpisodes()
    assert data.draw("train", torch.arange(2)).inner_order.shape == (2, 3, 4)
    assert data.draw("test", torch.arange(2)).inner_order.shape == (2, 0, 6)
