"""A policy gradient written out by hand in float64, trajectory by trajectory, for the tests to compare with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_meta.backbones import GaussianPolicy
from lightning_meta.data import NavigationEpisodes
from lightning_meta.episode import Episode, InnerBatches

Step = tuple[np.ndarray, np.ndarray, float]  # observation, action, reward
Policy = Callable[[Tensor], Tensor]


def policy(hidden: int = 6) -> GaussianPolicy:
    """A small one in the default precision, which moves: means of the size of the actions' bound."""
    torch.manual_seed(0)
    network = GaussianPolicy(2, hidden=(hidden,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        network.log_std -= 1.5
    return network


def episode(tasks: int = 3, trajectories: int = 4, horizon: int = 6, steps: int = 2) -> Episode:
    """Tasks in the default precision; in the first, every other trajectory of `policy` ends after its second step."""
    data = NavigationEpisodes(trajectories=trajectories, horizon=horizon)
    data.connect(InnerBatches(steps), InnerBatches())
    drawn = data.draw("train", torch.arange(tasks))
    dtype = torch.get_default_dtype()
    drawn = Episode(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in drawn))
    for noise, goals in ((drawn.support_x[0], drawn.support_y[0]), (drawn.query_x[0], drawn.query_y[0])):
        for row, steps in enumerate(follow(policy(), noise, torch.full_like(goals, 9.0))):
            if row % 2:
                goals[row] = torch.as_tensor(steps[2][0])
    return drawn


def follow(act: Policy, noise: Tensor, goals: Tensor) -> list[list[Step]]:
    """Trajectories, each up to its end; the environment is checked against Gymnasium's elsewhere, in float32."""
    trajectories = []
    for draws, goal in zip(noise, goals, strict=True):
        position, steps = np.zeros(2), []
        for draw in draws:
            with torch.no_grad():
                mean, log_std = act(torch.as_tensor(position, dtype=draw.dtype)[None])[0].chunk(2)
            action = (mean + log_std.exp() * draw).numpy()
            following = position + np.clip(action, -0.1, 0.1)
            left = goal.numpy() - following
            steps.append((position, action, -float(np.hypot(*left))))
            position = following
            if (np.abs(left) < 0.01).all():
                break
        trajectories.append(steps)
    return trajectories


def advantages(trajectories: list[list[Step]], discount: float, gae_lambda: float) -> list[list[float]]:
    """Baseline, generalised advantage estimation and normalisation, one number after another."""
    features, returns = [], []
    for steps in trajectories:
        for t, (position, _, _) in enumerate(steps):
            time = t / 100
            features.append([*position, *(position**2), time, time**2, time**3, 1.0])
            returns.append(sum(discount**k * reward for k, (_, _, reward) in enumerate(steps[t:])))
    x, y = np.array(features), np.array(returns)
    weights = np.linalg.lstsq(np.vstack([x, 1e-5**0.5 * np.eye(8)]), np.append(y, np.zeros(8)), rcond=None)[0]
    values = iter(x @ weights)
    raw = []
    for steps in trajectories:
        own = [next(values) for _ in steps] + [0.0]
        running, estimates = 0.0, []
        for t in reversed(range(len(steps))):
            running = steps[t][2] + discount * own[t + 1] - own[t] + discount * gae_lambda * running
            estimates.append(running)
        raw.append(estimates[::-1])
    every = np.concatenate(raw)
    return [[(value - every.mean()) / (every.std() + 1e-8) for value in estimates] for estimates in raw]


def loss(act: Policy, trajectories: list[list[Step]], weights: list[list[float]]) -> Tensor:
    """Minus the mean of log-probability times weight; differentiable in what ``act`` hangs on."""
    total, count = torch.zeros(()), 0
    for steps, row in zip(trajectories, weights, strict=True):
        for (position, action, _), weight in zip(steps, row, strict=True):
            mean, log_std = act(torch.as_tensor(position)[None])[0].chunk(2)
            distance = (torch.as_tensor(action) - mean) / log_std.exp()
            log_probability = -(distance**2) / 2 - log_std - 0.5 * np.log(2 * np.pi)
            total = total - weight * log_probability.sum()
            count += 1
    return total / count
