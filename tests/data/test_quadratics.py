"""Quadratic functions: independent standard normal entries, and the loss that they stand for."""

import pytest
import torch
from torch.nn import functional

from lightning_meta.data import QuadraticEpisodes
from lightning_meta.episode import InnerBatches, Split

TASKS = torch.arange(2000)


def test_entries_are_independent_and_standard_normal() -> None:
    episode = QuadraticEpisodes(dimensions=5).draw("train", TASKS)
    entries = torch.cat([episode.support_x.flatten(1), episode.support_y.flatten(1)], 1).double()
    assert entries.shape == (2000, 30)
    assert abs(entries.mean().item()) < 0.02
    below = [(entries < bound).double().mean().item() for bound in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert below == pytest.approx([0.0228, 0.1587, 0.5, 0.8413, 0.9772], abs=0.006)
    correlations = entries.T.corrcoef() - torch.eye(30, dtype=torch.float64)
    assert correlations.abs().max() < 0.11  # five standard errors


def test_the_summed_squared_error_is_the_function() -> None:
    episode = QuadraticEpisodes().draw("test", TASKS[:3])
    theta = torch.randn(10)
    for w, y, query_x, query_y in zip(*episode[:4], strict=True):
        expected = (w @ theta - y[:, 0]).square().sum()
        found = functional.mse_loss(functional.linear(query_x, theta[None]), query_y, reduction="sum")
        torch.testing.assert_close(found, expected)
        assert torch.equal(query_x, w) and torch.equal(query_y, y)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_function_depends_on_seed_split_and_number_alone(split: Split) -> None:
    numbers = torch.tensor([7, 3, 10**9])
    episode, alone = QuadraticEpisodes().draw(split, numbers), QuadraticEpisodes().draw(split, numbers[2:])
    assert all(torch.equal(tensor[2:], other) for tensor, other in zip(episode, alone, strict=True))


def test_functions_of_other_splits_and_seeds_are_others() -> None:
    streams: list[tuple[int, Split]] = [(0, "train"), (0, "validation"), (0, "test"), (1, "train")]
    firsts = torch.cat([QuadraticEpisodes(seed=seed).draw(split, TASKS).support_x[:, 0, 0] for seed, split in streams])
    assert firsts.unique().numel() > 7990  # but for few that round to the same number


def test_every_step_sees_all_rows() -> None:
    data = QuadraticEpisodes(dimensions=4)
    data.connect(InnerBatches(3, None, 2), InnerBatches())
    assert data.draw("train", TASKS[:2]).inner_order.tolist() == [[[0, 1, 2, 3]] * 6] * 2
