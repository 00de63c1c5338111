"""Environments for few-shot reinforcement learning: for Gymnasium, and as pure functions of tensors."""

import gymnasium

from lightning_meta.envs.environment import TensorEnvironment, Transition
from lightning_meta.envs.navigation import Navigation2D, TensorNavigation2D

__all__ = ["Navigation2D", "TensorEnvironment", "TensorNavigation2D", "Transition"]

gymnasium.register(
    "lightning_meta/Navigation2D-v0", "lightning_meta.envs.navigation:Navigation2D", max_episode_steps=100
)
