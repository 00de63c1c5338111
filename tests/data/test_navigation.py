"""Navigation episodes: noise drawn beforehand, rows of its own for every inner step."""

from typing import Any

import pytest
import torch

from lightning_meta.data import NavigationEpisodes
from lightning_meta.episode import Episode, InnerBatches, Split
from lightning_meta.errors import MetaLearningError


def episodes(steps: int = 2, **settings: Any) -> NavigationEpisodes:
    data = NavigationEpisodes(**{"trajectories": 5, "horizon": 7} | settings)
    data.connect(InnerBatches(steps), InnerBatches())
    return data


def draw(data: NavigationEpisodes, *numbers: int, split: Split = "train") -> Episode:
    return data.draw(split, torch.tensor(numbers))


def test_shapes_and_rows_of_its_own_for_every_inner_step() -> None:
    episode = draw(episodes(), 0, 1, 2)
    assert episode.support_x.shape == (3, 10, 7, 2)
    assert episode.support_y.shape == (3, 10, 2)
    assert episode.query_x.shape == (3, 5, 7, 2)
    assert episode.query_y.shape == (3, 5, 2)
    assert episode.inner_order.tolist() == [[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]] * 3
    assert episode.classes.shape == (3, 0)
    noise = torch.cat([episode.support_x, episode.query_x], 1).flatten(0, 1).flatten(1)
    assert len({tuple(row) for row in noise.tolist()}) == 45  # no trajectory's noise comes twice


def test_without_inner_steps_there_are_rows_to_score_on() -> None:
    episode = draw(episodes(0), 0)
    assert episode.support_x.shape == (1, 5, 7, 2)
    assert episode.inner_order.shape == (1, 0, 5)


def test_goals_are_one_for_a_task_and_uniform() -> None:
    episode = draw(episodes(), *range(4000))
    goals = episode.query_y[:, 0]
    assert (episode.query_y == goals[:, None]).all()
    assert (episode.support_y == goals[:, None]).all()
    assert goals.abs().max() <= 0.5
    assert goals.mean(0).abs().max() < 0.02
    assert torch.allclose(goals.std(0), torch.tensor(1 / 12).sqrt(), atol=0.01)


def test_noise_is_standard_normal() -> None:
    noise = draw(episodes(), *range(500)).query_x.flatten()
    assert noise.isfinite().all()
    expected = torch.special.ndtr(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    found = torch.stack([(noise < bound).float().mean() for bound in (-2.0, -1.0, 0.0, 1.0, 2.0)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_a_task_is_a_function_of_seed_split_and_number() -> None:
    data = episodes()
    several, alone = draw(data, 3, 4, 5), draw(data, 4)
    for tensor, single in zip(several, alone, strict=True):
        assert (tensor[1:2] == single).all()
    goals = [draw(d, 0, split=split).query_y[0, 0].tolist() for d, split in (
        (data, "train"), (data, "test"), (data, "validation"), (episodes(seed=1), "train"))]  # fmt: skip
    assert len({tuple(goal) for goal in goals}) == 4


def test_more_inner_steps_leave_goals_and_query_noise_as_they_are() -> None:
    one, three = draw(episodes(1), 0, 1), draw(episodes(3), 0, 1)
    assert (one.query_x == three.query_x).all()
    assert (one.query_y == three.query_y).all()
    assert (one.support_x == three.support_x[:, :5]).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trajectories": 0}, "data.trajectories is 0, expected at least 1"),
        ({"horizon": 0}, "data.horizon is 0, expected at least 1"),
        ({"meta_batch_size": 0}, "data.meta_batch_size is 0, expected at least 1"),
    ],
)
def test_wrong_numbers_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        episodes(**settings)


@pytest.mark.parametrize(("split", "name"), [("train", "batch_size"), ("test", "evaluation_batch_size")])
def test_an_inner_batch_is_refused(split: Split, name: str) -> None:
    data = episodes()
    data.connect(InnerBatches(1, 3), InnerBatches(1, 3))
    with pytest.raises(MetaLearningError, match=f"model.inner.{name} is 3, but an inner step"):
        draw(data, 0, split=split)
