"""2-D navigation: Finn, Abbeel and Levine, arXiv 1703.03400, section 5.3.

As in Deleu's code (tristandeleu/pytorch-maml-rl), the reward is minus the distance to the goal, where the paper writes
its square, and the goal is reached when both coordinates are within 0.01 of it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lightning_meta.envs.environment import TensorEnvironment, Transition
from lightning_meta.errors import MetaLearningError

GOAL_BOUND = 0.5  # goals lie in [-0.5, 0.5]^2
SPEED_BOUND = 0.1  # of each coordinate, in a step
REACHED = 0.01

_OBSERVATIONS = Box(-np.inf, np.inf, (2,), np.float32)
_ACTIONS = Box(-SPEED_BOUND, SPEED_BOUND, (2,), np.float32)


class Navigation2D(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point in the plane that starts at the origin and is to reach a goal which it does not see.

    Observed is the position; an action is a velocity, clipped to [-0.1, 0.1]; ``info["goal"]`` tells the goal. Made by
    ``gymnasium.make("lightning_meta/Navigation2D-v0")``, it is truncated after 100 steps.

    Args:
        goal: the goal, two numbers; when None, every `reset` draws one from [-0.5, 0.5]^2.

    Raises:
        MetaLearningError: the goal is not a pair of finite numbers.
    """

    def __init__(self, goal: tuple[float, float] | None = None) -> None:
        self.observation_space, self.action_space = _OBSERVATIONS, _ACTIONS
        self._given = None if goal is None else np.asarray(goal, np.float32)
        if self._given is not None and not (self._given.shape == (2,) and np.isfinite(self._given).all()):
            raise MetaLearningError(f"goal is {goal}, expected two finite numbers, such as (0.3, -0.2)")
        self._goal = self._position = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Go back to the origin, with another goal unless one was given."""
        super().reset(seed=seed)
        drawn = self.np_random.uniform(-GOAL_BOUND, GOAL_BOUND, 2).astype(np.float32)
        self._goal = drawn if self._given is None else self._given
        self._position = np.zeros(2, np.float32)
        return self._position, {"goal": self._goal.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move, and be paid minus the distance that is left."""
        self._position = self._position + np.clip(action, -SPEED_BOUND, SPEED_BOUND).astype(np.float32)
        left = self._goal - self._position
        reached = bool((np.abs(left) < REACHED).all())
        return self._position, -float(np.linalg.norm(left)), reached, False, {"goal": self._goal.copy()}


@dataclass(frozen=True)
class TensorNavigation2D(TensorEnvironment):
    """`Navigation2D` as pure functions of tensors."""

    observation_space: ClassVar[Box] = _OBSERVATIONS
    action_space: ClassVar[Box] = _ACTIONS
    goal_width: ClassVar[int] = 2

    def reset(self, goal: Tensor) -> Tensor:
        return torch.zeros_like(goal)

    def step(self, observation: Tensor, action: Tensor, goal: Tensor) -> Transition:
        position = observation + action.clamp(-SPEED_BOUND, SPEED_BOUND)
        left = goal - position
        return Transition(position, -left.square().sum(-1).sqrt(), (left.abs() < REACHED).all(-1))
