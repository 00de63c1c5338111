"""2-D navigation: Gymnasium's own checks, and the tensor form against it, step by step."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from lightning_meta.envs import Navigation2D, TensorNavigation2D
from lightning_meta.errors import MetaLearningError

NAME = "lightning_meta/Navigation2D-v0"


@pytest.mark.filterwarnings("ignore:.*observation space (minimum|maximum) value is -?infinity")  # the plane has no end
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")  # the source's velocities
def test_gymnasium_takes_the_environment() -> None:
    check_env(gymnasium.make(NAME).unwrapped)


def test_goals_are_drawn_from_the_square_unless_one_is_given() -> None:
    environment = gymnasium.make(NAME)
    _, info = environment.reset(seed=0)
    goals = np.stack([info["goal"], *(environment.reset()[1]["goal"] for _ in range(500))])
    assert np.abs(goals).max() <= 0.5
    assert np.abs(goals).max(0) == pytest.approx(0.5, abs=0.01)
    assert np.abs(goals.mean(0)).max() < 0.05
    given = gymnasium.make(NAME, goal=(0.3, -0.2))
    assert given.reset()[1]["goal"] == pytest.approx([0.3, -0.2])


def test_it_starts_at_the_origin_and_ends_after_a_hundred_steps() -> None:
    environment = gymnasium.make(NAME, goal=(0.5, 0.5))
    position, _ = environment.reset()
    assert position.tolist() == [0, 0]
    ends = [environment.step(np.zeros(2, np.float32))[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


@pytest.mark.parametrize("goal", [(0.1,), (0.1, float("nan"))])
def test_a_goal_that_is_none_is_refused(goal: tuple[float, ...]) -> None:
    with pytest.raises(MetaLearningError, match="expected two finite numbers"):
        Navigation2D(goal)  # type: ignore[arg-type]


def test_the_tensor_form_equals_it_step_by_step() -> None:
    """Noisy trajectories, half of which go for the goal, so that some reach it; vectorised over tasks."""
    generator = torch.Generator().manual_seed(0)
    tasks, trajectories = 3, 4
    goals = (torch.rand(tasks, 1, 2, generator=generator) - 0.5).expand(-1, trajectories, -1)
    tensors = TensorNavigation2D()
    step, single = torch.func.vmap(tensors.step), gymnasium.make(NAME).unwrapped
    noise = torch.randn(tasks, trajectories, 30, 2, generator=generator)
    noise[:, ::2] *= 0.002
    expected = []
    for task in range(tasks):
        for trajectory in range(trajectories):
            environment = Navigation2D(tuple(goals[task, 0].tolist()))
            position, info = environment.reset()
            seen = []
            for draw in noise[task, trajectory].numpy():
                towards = (info["goal"] - position) if trajectory % 2 == 0 else 0
                position, reward, terminated, truncated, info = environment.step(towards + draw)
                assert environment.observation_space.contains(position)
                assert not truncated
                seen.append((*position, reward, terminated))
            expected.append(seen)
    position = torch.func.vmap(tensors.reset)(goals)
    found = []
    for draw in noise.unbind(2):
        towards = (goals - position) * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None]
        position, reward, done = step(position, towards + draw, goals)
        found.append(torch.cat([position, reward[..., None], done[..., None]], -1))
    flat = torch.stack(found, 2).flatten(0, 1)
    torch.testing.assert_close(flat, torch.tensor(expected), rtol=0, atol=1e-6)
    assert flat[..., 3].any()
    assert not flat[..., 3].all()
    assert single.action_space == tensors.action_space
    assert single.observation_space == tensors.observation_space
