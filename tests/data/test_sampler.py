"""The sampler that all image data share, on images whose pixels say their class, their drawing and their turn."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_meta.data.base import Split
from lightning_meta.data.images import ClassImages, ImageEpisodes
from lightning_meta.data.task_random import TaskRandom, inner_order
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.errors import MetaLearningError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASSES = {"train": torch.arange(3, 9), "validation": torch.arange(9, 14), "test": torch.tensor([0, 1, 2, 14, 15])}
COUNTS = 6 + torch.arange(16) % 3  # classes of 6, 7 and 8 images
MARK = 255  # in the lower right corner, unless turned

properties = settings(deadline=None, max_examples=25, derandomize=True)
split_names = st.sampled_from(SPLITS)
turn_settings = st.sampled_from(["none", "classes", "tasks"])


class TinyEpisodes(ImageEpisodes):
    """Image [[class, drawing], [0, MARK]]."""

    def __init__(self, **changes: Any) -> None:
        given = {
            "ways": 3, "shots": 2, "queries": 3, "train_shots": None, "train_queries": None, "rotations": "none",
            "meta_batch_size": 4, "validation_tasks": 5, "test_tasks": 11, "seed": 0, "num_workers": 0,
        }  # fmt: skip
        super().__init__(**(given | changes))
        self.train_batches = InnerBatches(steps=3, size=4)

    def load(self) -> ClassImages:
        classes = torch.arange(16).repeat_interleave(COUNTS)
        starts = COUNTS.cumsum(0) - COUNTS
        drawings = torch.arange(len(classes)) - starts[classes]
        pixels = torch.stack([classes, drawings, torch.zeros_like(classes), torch.full_like(classes, MARK)], -1)
        return ClassImages(pixels.view(-1, 1, 2, 2).to(torch.uint8), starts, COUNTS, CLASSES)


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


def assert_same(left: Episode, right: Episode) -> None:
    for name, one, other in zip(Episode._fields, left, right, strict=True):
        assert torch.equal(one, other), name


def assert_uniform(counts: Tensor) -> None:
    """Chi-square within five standard deviations of what equal chances give."""
    expected = counts.sum().item() / counts.numel()
    freedom = counts.numel() - 1
    assert ((counts - expected) ** 2 / expected).sum().item() < freedom + 5 * (2 * freedom) ** 0.5


@properties
@given(split=split_names, rotations=turn_settings, seed=st.integers(0, 2**40), ways=st.integers(1, 5))
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
@given(split=split_names, ways=st.integers(1, 5), shots=st.integers(1, 3), queries=st.integers(1, 3))
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
    assert together.number.tolist() == numbers
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


def test_choose_is_uniform_over_ordered_choices() -> None:
    chosen = TaskRandom(0, "test", torch.arange(30_000)).choose(5, 3)
    codes = (chosen * torch.tensor([25, 5, 1])).sum(-1)
    counts = torch.bincount(codes, minlength=125)
    assert (counts > 0).sum() == 60  # 5 * 4 * 3: no number twice
    assert_uniform(counts[counts > 0])


def test_choose_takes_a_population_for_every_entry() -> None:
    population = torch.tensor([2, 4]).expand(20_000, 2)
    chosen = TaskRandom(0, "test", torch.arange(20_000)).choose(population, 2, (2,))
    counts = [torch.bincount(chosen[:, entry] @ torch.tensor([4, 1]), minlength=16) for entry in range(2)]
    assert [(count > 0).sum().item() for count in counts] == [2, 12]
    for count in counts:
        assert_uniform(count[count > 0])


@properties
@given(rows=st.integers(1, 12), steps=st.integers(1, 12), size=st.integers(1, 15), seed=st.integers(0, 2**40))
def test_inner_order_walks_through_all_rows_before_any_comes_again(rows: int, steps: int, size: int, seed: int) -> None:
    order = inner_order(TaskRandom(seed, "train", torch.arange(4)), rows, steps, size)
    assert order.shape == (4, steps, size)
    for walk in order.flatten(1).split(rows, 1):
        ordered = walk.sort(1).values
        assert (ordered.diff() > 0).all()
        assert ordered.min() >= 0 and ordered.max() < rows


def test_inner_order_is_shuffled_anew_for_every_walk_and_task() -> None:
    order = inner_order(TaskRandom(0, "train", torch.arange(4000)), 4, 2, 4)  # a walk is a step
    repeated = (order[:, 0] == order[:, 1]).all(-1).sum()
    assert 100 < repeated < 235  # of 4! orders, so about 167 in 4000
    assert_uniform(torch.stack([torch.bincount(order[:, 0, place], minlength=4) for place in range(4)]))


def test_inner_order_of_whole_support_sets_is_their_own_order() -> None:
    order = inner_order(TaskRandom(0, "train", torch.arange(3)), 5, 2, None)
    assert torch.equal(order, torch.arange(5).expand(3, 2, 5))


def test_the_order_in_the_episode_is_what_the_algorithm_asked_for() -> None:
    data = TinyEpisodes()
    assert data.draw("train", torch.arange(2)).inner_order.shape == (2, 3, 4)
    assert data.draw("test", torch.arange(2)).inner_order.shape == (2, 0, 6)


def on_rank(rank: int, ranks: int, max_steps: int = 3, **changes: Any) -> TinyEpisodes:
    """Data as one of several ranks has it, in a run of a few meta-steps."""
    data = TinyEpisodes(**changes)
    total = SimpleNamespace(processed=0)  # batches that the trainer has worked through
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
    trainer: Any = SimpleNamespace(
        global_rank=rank,
        world_size=ranks,
        max_steps=max_steps,
        accumulate_grad_batches=2,
        fit_loop=loop,
        state=SimpleNamespace(fn="fit"),
    )
    data.trainer = trainer
    return data


def test_ranks_share_every_training_batch() -> None:
    whole = [episode.number for episode in on_rank(0, 1).train_dataloader()]
    shares = [[episode.number for episode in on_rank(rank, 2).train_dataloader()] for rank in range(2)]
    assert torch.equal(torch.stack(whole), torch.arange(24).view(6, 4))  # 3 meta-steps of 2 batches
    for batch, share, other in zip(whole, *shares, strict=True):
        assert len(share) == len(other) == 2
        assert torch.equal(torch.cat([share, other]).sort().values, batch)


def test_training_goes_on_where_the_checkpoint_ended() -> None:
    data = on_rank(0, 1)
    data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 0})
    assert next(iter(data.train_dataloader())).number.tolist() == [40, 41, 42, 43]
    data.trainer.fit_loop.epoch_loop.batch_progress.total.processed = 2  # type: ignore[union-attr]
    assert data.state_dict() == {"consumed_tasks": 48, "consumed_batches": 2, "seed": 0}
    assert next(iter(data.train_dataloader())).number.tolist() == [48, 49, 50, 51]
    assert next(iter(data.test_dataloader())).number.tolist() == [0, 1, 2, 3]
    with pytest.raises(MetaLearningError, match="seed 1, but the seed is 0"):
        data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 1})


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("tasks", [1, 4, 5, 11])
def test_evaluation_counts_every_task_once_on_any_number_of_ranks(ranks: int, tasks: int) -> None:
    loaders = [on_rank(rank, ranks, test_tasks=tasks).test_dataloader() for rank in range(ranks)]
    batches = [[episode.number for episode in loader] for loader in loaders]
    assert {len(own) for own in batches} == {-(-tasks // 4)}  # ranks must take part in the same steps
    assert torch.cat([number for own in batches for number in own]).sort().values.tolist() == list(range(tasks))


def test_workers_draw_the_same_episodes() -> None:
    here, elsewhere = (list(on_rank(0, 1, num_workers=workers).train_dataloader()) for workers in (0, 2))
    for one, other in zip(here, elsewhere, strict=True):
        assert_same(one, other)


def test_a_split_without_validation_tasks_has_no_loader() -> None:
    data = TinyEpisodes(validation_tasks=0)
    data.setup("fit")
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"ways": 6}, "test", "data.ways is 6, but the test split has 5 classes"),
        ({"ways": 25, "rotations": "classes"}, "fit", "data.ways is 25, but the train split has 24 classes"),
        ({"ways": 6}, "validate", "choose a split with validation classes"),
        ({"shots": 5, "queries": 2}, "predict", "5 shots . 2 queries = 7 images .* has 6: lower data.shots"),
        ({"train_shots": 5}, "fit", "5 shots . 3 queries = 8 images .* data.train_shots"),
    ],
)
def test_tasks_that_the_images_cannot_fill_are_refused(changes: dict[str, Any], stage: str, message: str) -> None:
    with pytest.raises(MetaLearningError, match=message):
        TinyEpisodes(**changes).setup(stage)


@pytest.mark.parametrize("name", ["ways", "shots", "queries", "meta_batch_size"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(MetaLearningError, match=f"data.{name} is 0, expected at least 1"):
        TinyEpisodes(**{name: 0})


def test_streams_that_no_run_can_use_are_refused() -> None:
    with pytest.raises(MetaLearningError, match=r"data.meta_batch_size is 4 .* 3 ranks"):
        on_rank(0, 3).train_dataloader()
    with pytest.raises(MetaLearningError, match=r"trainer.max_steps is -1"):
        on_rank(0, 1, max_steps=-1).train_dataloader()
    with pytest.raises(MetaLearningError, match=r"data.test_tasks is 0"):
        on_rank(0, 1, test_tasks=0).setup("test")
