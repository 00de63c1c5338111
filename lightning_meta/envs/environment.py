"""What an environment must be to run inside ``torch.func.vmap`` and a traced graph."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from gymnasium.spaces import Box
from torch import Tensor


class Transition(NamedTuple):
    """What a step leads to."""

    observation: Tensor  # (..., observations)
    reward: Tensor  # (...)
    done: Tensor  # (...), boolean


class TensorEnvironment(ABC):
    """An environment as pure functions of tensors, for any number of trajectories of any number of tasks at once.

    Its state is what is observed. Nothing in it is random, and no size or branch depends on values. Write a subclass as
    a frozen dataclass: its fields are then kept in checkpoints by themselves.
    """

    observation_space: ClassVar[Box]
    action_space: ClassVar[Box]
    goal_width: ClassVar[int]  # entries of what tells one task from another

    @abstractmethod
    def reset(self, goal: Tensor) -> Tensor:
        """The first observations, shape (..., observations), of the tasks ``goal``, shape (..., goal_width)."""

    @abstractmethod
    def step(self, observation: Tensor, action: Tensor, goal: Tensor) -> Transition:
        """What the actions, shape (..., actions), lead to."""
