"""Random numbers of tasks, and the order in which an inner loop walks through a support set."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from tests.data.tiny_episodes import assert_uniform

properties = settings(deadline=None, max_examples=25, derandomize=True)


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
