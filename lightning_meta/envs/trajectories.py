"""Trajectories of a Gaussian policy, and what a policy gradient learns from them: pure functions of tensors."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn import functional

from lightning_meta.envs import TensorEnvironment

Policy = Callable[[Tensor], Tensor]  # observations (rows, observations) -> (rows, 2 * actions), see `distribution`

_RIDGE = 1e-5
_TIME_UNIT = 100.0  # steps


class Trajectories(NamedTuple):
    """What a policy met, each tensor (trajectories, horizon, ...)."""

    observations: Tensor  # (trajectories, horizon, observations)
    actions: Tensor  # (trajectories, horizon, actions), not clipped
    rewards: Tensor  # (trajectories, horizon)
    mask: Tensor  # (trajectories, horizon): 1 up to the end of the trajectory, 0 afterwards


class Samples(NamedTuple):
    """What a policy gradient is taken from, each tensor (trajectories, horizon, ...)."""

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    mask: Tensor


def distribution(outputs: Tensor) -> Independent:
    """The policy's distribution of actions, from means and log standard deviations (..., 2 * actions)."""
    mean, log_std = outputs.chunk(2, -1)
    return Independent(Normal(mean, log_std.exp(), validate_args=False), 1, validate_args=False)


def roll_out(environment: TensorEnvironment, policy: Policy, noise: Tensor, goals: Tensor) -> Trajectories:
    """Follow a policy. Every trajectory runs through the horizon, and ``mask`` says where it had ended.

    Args:
        environment: where.
        policy: whom.
        noise: standard normal, (trajectories, horizon, actions); an action is mean + deviation * noise.
        goals: the task of each trajectory, (trajectories, goal_width).
    """
    observation = environment.reset(goals)
    mask = torch.ones_like(noise[:, 0, 0])
    steps = []
    for draw in noise.unbind(1):
        mean, log_std = policy(observation).chunk(2, -1)
        action = mean + log_std.exp() * draw
        following, reward, done = environment.step(observation, action, goals)
        steps.append((observation, action, reward * mask, mask))
        observation, mask = following, mask * ~done
    return Trajectories(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


def discounted_sums(values: Tensor, rate: float) -> Tensor:
    """Of each entry and those that follow it, (..., horizon): sum_k rate^k values[t + k]."""
    time = torch.arange(values.shape[-1], device=values.device)
    distance = time[:, None] - time  # from column to row
    powers = torch.pow(torch.full_like(distance, rate, dtype=values.dtype), distance.clamp(min=0))
    return values @ powers.tril()


def baseline(observations: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """The linear feature baseline of Duan et al. (arXiv 1604.06778): values (trajectories, horizon) of the states.

    Ridge regression of the returns on the observation, its square, time, its square and cube, and a constant, fitted
    to these very trajectories.
    """
    time = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype) / _TIME_UNIT
    times = torch.stack([time, time**2, time**3, torch.ones_like(time)], -1).expand(*mask.shape, -1)
    features = torch.cat([observations, observations.square(), times], -1) * mask[..., None]
    flat = features.flatten(0, 1)
    ridge = _RIDGE * torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    weights = torch.linalg.solve(flat.T @ flat + ridge, flat.T @ (returns * mask).flatten())
    return features @ weights


def advantages(trajectories: Trajectories, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al., arXiv 1506.02438), of mean 0 and deviation 1.

    In float64: normal equations square the condition number, and autocast leaves float64 alone.

    Args:
        trajectories: of one task.
        discount: gamma.
        gae_lambda: lambda; 1 is the discounted return minus the `baseline`.

    Returns:
        Shape (trajectories, horizon), zero after the end of a trajectory.
    """
    observations, _, rewards, mask = (tensor.double() for tensor in trajectories)
    values = baseline(observations, discounted_sums(rewards, discount), mask)
    following = functional.pad(values[:, 1:], (0, 1))
    raw = discounted_sums(rewards + discount * following - values, discount * gae_lambda)
    steps = mask.sum()
    centred = (raw - (raw * mask).sum() / steps) * mask
    deviation = (centred.square().sum() / steps).sqrt()
    return (centred / (deviation + 1e-8)).to(trajectories.rewards)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all steps before the trajectories' ends."""
    return (values * mask).sum() / mask.sum()


def policy_gradient_loss(policy: Policy, samples: Samples) -> Tensor:
    """REINFORCE (Williams 1992): minus the mean of log-probability times advantage, whose gradient is the estimate."""
    outputs = policy(samples.observations.flatten(0, 1)).unflatten(0, samples.mask.shape)
    return -masked_mean(distribution(outputs).log_prob(samples.actions) * samples.advantages, samples.mask)
