"""What reinforcement learners refuse, each with the setting, its value, what was expected and what to do."""

import math

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lightning_meta.envs import TensorEnvironment
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.solvers.trust_region import TrustRegion


def check_reinforcement_settings(
    environment: TensorEnvironment, inner: InnerLoop, discount: float, gae_lambda: float
) -> None:
    """Refuse what no policy gradient can be taken with."""
    if not isinstance(environment, TensorEnvironment):
        raise MetaLearningError(
            f"model.environment is {type(environment).__name__}, expected a TensorEnvironment, whose steps are "
            "functions of tensors: set it to TensorNavigation2D, or write one as in lightning_meta/envs/navigation.py"
        )
    if not 0 < discount <= 1:
        raise MetaLearningError(f"model.discount is {discount}, expected a number above 0 and at most 1")
    if not 0 <= gae_lambda <= 1:
        raise MetaLearningError(f"model.gae_lambda is {gae_lambda}, expected a number from 0 to 1")
    if inner.reduction != "mean":
        raise MetaLearningError(
            f"model.inner.reduction is {inner.reduction}, but a policy gradient is a mean over the steps of all "
            "trajectories: set it to mean, and scale model.inner.optimizer.lr instead"
        )
    for name, space in {"observation": environment.observation_space, "action": environment.action_space}.items():
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise MetaLearningError(
                f"model.environment {type(environment).__name__} has the {name} space {space}, but a Gaussian policy "
                "needs vectors: set model.environment to one whose spaces are a gymnasium.spaces.Box of shape (n,)"
            )


def check_policy(policy: nn.Module, environment: TensorEnvironment) -> None:
    """Run the policy once; refuse one that does not take the observations, or does not decide on all actions."""
    name, place = f"model.backbone {type(policy).__name__}", f"model.environment {type(environment).__name__}"
    (observations,), (actions,) = environment.observation_space.shape, environment.action_space.shape
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise MetaLearningError(f"{name} has no parameter that requires a gradient")
    parameter = next(policy.parameters())
    try:
        with torch.no_grad():
            found = policy(parameter.new_zeros(3, observations))
    except (RuntimeError, ValueError, IndexError) as error:
        raise MetaLearningError(
            f"{name} cannot take the {observations} entries of an observation of {place}: {error}. Set "
            f"model.backbone.inputs to {observations}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (3, 2 * actions):
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise MetaLearningError(
            f"{name} gives {shown} for 3 observations, but {place} takes {actions} actions: expected (3, "
            f"{2 * actions}), means and log standard deviations. Set model.backbone to GaussianPolicy with outputs "
            f"{actions}, which the command line takes from the data"
        )


def check_noise(environment: TensorEnvironment, episode: Episode) -> None:
    """Refuse episodes that are not noise for these actions, or bring other goals."""
    (actions,) = environment.action_space.shape
    noise, goals = episode.query_x[0], episode.query_y[0]
    fits = noise.dim() == 3 and noise.shape[-1] == actions and noise.is_floating_point()
    if not fits or goals.shape != (len(noise), environment.goal_width):
        raise MetaLearningError(
            f"the data give inputs of shape {tuple(noise.shape)} and targets of shape {tuple(goals.shape)}, but "
            f"model.environment {type(environment).__name__} needs noise (trajectories, horizon, {actions}) and goals "
            f"(trajectories, {environment.goal_width}): set data to NavigationEpisodes, or to episodes of this "
            "environment"
        )


def check_trust_region(region: TrustRegion) -> None:
    """Refuse numbers that make no trust region."""
    expected = {
        "max_kl": ("above 0", 0 < region.max_kl < math.inf),
        "conjugate_gradient_steps": ("at least 1", region.conjugate_gradient_steps >= 1),
        "damping": ("at least 0", 0 <= region.damping < math.inf),
        "line_search_steps": ("at least 1", region.line_search_steps >= 1),
        "line_search_ratio": ("between 0 and 1", 0 < region.line_search_ratio < 1),
    }
    for name, (range_, fits) in expected.items():
        if not fits:
            raise MetaLearningError(f"model.region.{name} is {getattr(region, name)}, expected a number {range_}")


def check_rounding(precision: str) -> None:
    """Refuse mixed precision where two policies are compared that hardly differ."""
    if precision not in ("32-true", "64-true"):
        raise MetaLearningError(
            f"trainer.precision is {precision}, but a trust region compares policies that hardly differ: set it to "
            "32-true"
        )
