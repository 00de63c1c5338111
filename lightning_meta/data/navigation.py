"""Few-shot reinforcement learning: 2-D navigation (Finn, Abbeel and Levine, arXiv 1703.03400, section 5.3)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule, check_at_least
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.envs.navigation import GOAL_BOUND
from lightning_meta.episode import Episode, Split
from lightning_meta.errors import MetaLearningError


@dataclass(kw_only=True, eq=False)
class NavigationEpisodes(EpisodeDataModule):
    """Tasks whose goals are uniform in [-0.5, 0.5]^2, with the noise of all trajectories drawn beforehand.

    A row of an episode is one trajectory: ``x`` holds the standard normal noise of its actions, shape (tasks, rows,
    horizon, 2), and ``y`` its task's goal, (tasks, rows, 2). Each inner step has its own support rows, since its
    trajectories are those of another policy; the query rows are the trajectories after adaptation. The splits are
    disjoint streams of random goals.

    Args:
        trajectories: trajectories of each inner step, and as many after adaptation.
        horizon: largest number of steps in a trajectory.

    Raises:
        MetaLearningError: a number is below one; or ``model.inner.batch_size`` would cut the trajectories of a step.
    """

    outputs = 2

    trajectories: int = 20
    horizon: int = 100
    ways: int = field(default=1, init=False)
    shots: int = field(init=False)
    queries: int = field(init=False)
    train_ways: int | None = field(default=None, init=False)
    train_shots: int | None = field(default=None, init=False)
    train_queries: int | None = field(default=None, init=False)
    meta_batch_size: int = 20
    validation_tasks: int = 40

    def __post_init__(self) -> None:
        check_at_least(1, trajectories=self.trajectories, horizon=self.horizon)
        self.shots = self.queries = self.trajectories
        super().__post_init__()

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The goals of these numbers, and noise. More inner steps leave goals and query noise as they are."""
        steps, size = self.inner_batches(split).steps, self.inner_batches(split).size
        if size is not None:
            raise MetaLearningError(
                f"model.inner.{'batch_size' if split == 'train' else 'evaluation_batch_size'} is {size}, but an inner "
                f"step learns from all of its data.trajectories ({self.trajectories}): leave it null"
            )
        random = TaskRandom(self.seed, split, numbers)
        goals = random.uniform(-GOAL_BOUND, GOAL_BOUND, 1, 2)
        query = random.normal(self.trajectories, self.horizon, self.outputs)
        rows = max(steps, 1) * self.trajectories  # to score the policy on, even where no step needs any
        support = random.normal(rows, self.horizon, self.outputs)
        order = torch.arange(steps * self.trajectories).view(steps, self.trajectories)
        return Episode(
            support,
            goals.expand(-1, support.shape[1], -1),
            query,
            goals.expand(-1, query.shape[1], -1),
            order.expand(len(numbers), -1, -1),
            numbers,
            numbers.new_empty(len(numbers), 0),
        )
