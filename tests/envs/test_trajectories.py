"""Trajectories, baseline, advantages and the policy gradient against loops written out by hand, in float64."""

import pytest
import torch
from torch import Tensor

from lightning_meta.envs import TensorNavigation2D
from lightning_meta.envs.trajectories import Samples, advantages, discounted_sums, policy_gradient_loss, roll_out
from tests.algorithms import reinforcement

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("rate", [1.0, 0.9, 0.0])
def test_discounted_sums_are_those_of_a_loop(rate: float) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 3, 5)
    expected = torch.zeros_like(values)
    running = torch.zeros(2, 3)
    for t in reversed(range(5)):
        running = values[..., t] + rate * running
        expected[..., t] = running
    torch.testing.assert_close(discounted_sums(values, rate), expected, rtol=1e-12, atol=1e-12)


def padded(rows: list[list[float]], horizon: int) -> Tensor:
    return torch.tensor([row + [0.0] * (horizon - len(row)) for row in rows])


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.99, 1.0), (0.9, 0.8), (1.0, 0.0)])
def test_everything_equals_a_loop(discount: float, gae_lambda: float) -> None:
    act, episode = reinforcement.policy(), reinforcement.episode(trajectories=8, horizon=9)
    lengths = []
    for task in range(2):
        noise, goals = episode.query_x[task], episode.query_y[task]
        found = roll_out(TensorNavigation2D(), lambda x: act(x).detach(), noise, goals)
        expected = reinforcement.follow(act, noise, goals)
        for row, steps in enumerate(expected):
            length = len(steps)
            lengths.append(length)
            assert found.mask[row].tolist() == [1.0] * length + [0.0] * (9 - length)
            for t, (position, action, reward) in enumerate(steps):
                torch.testing.assert_close(found.observations[row, t], torch.as_tensor(position), rtol=0, atol=1e-12)
                torch.testing.assert_close(found.actions[row, t], torch.as_tensor(action), rtol=0, atol=1e-12)
                assert found.rewards[row, t] == pytest.approx(reward, abs=1e-12)
            assert (found.rewards[row, length:] == 0).all()
        ours = advantages(found, discount, gae_lambda)
        weights = reinforcement.advantages(expected, discount, gae_lambda)
        torch.testing.assert_close(ours, padded(weights, 9), rtol=0, atol=1e-8)
        # The padding beyond a trajectory's end has no say.
        padding = torch.where(found.mask[..., None] == 1, found.actions, 7.0)
        samples = Samples(found.observations, padding, ours, found.mask)
        gradients = torch.autograd.grad(policy_gradient_loss(act, samples), list(act.parameters()))
        slopes = torch.autograd.grad(reinforcement.loss(act, expected, weights), list(act.parameters()))
        torch.testing.assert_close(gradients, slopes, rtol=0, atol=1e-8)
    assert min(lengths) < 9 == max(lengths)


def test_advantages_are_normalised_and_do_not_see_the_padding() -> None:
    act, episode = reinforcement.policy(), reinforcement.episode(trajectories=8, horizon=9)
    found = roll_out(TensorNavigation2D(), lambda x: act(x).detach(), episode.query_x[0], episode.query_y[0])
    estimates = advantages(found, 0.99, 1.0)
    steps = estimates[found.mask == 1]
    assert len(steps) < estimates.numel()
    assert steps.mean() == pytest.approx(0, abs=1e-12)
    assert steps.std(correction=0) == pytest.approx(1, abs=1e-6)
    changed = found._replace(observations=torch.where(found.mask[..., None] == 1, found.observations, 9.0))
    torch.testing.assert_close(advantages(changed, 0.99, 1.0), estimates, rtol=0, atol=1e-12)
