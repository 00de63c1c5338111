"""Few-shot reinforcement learning: 2-D navigation (Finn, Abbeel and Levine, arXiv 1703.03400, section 5.3)."""

import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.envs.navigation import GOAL_BOUND
from lightning_meta.episode import Episode, Split
from lightning_meta.errors import MetaLearningError


class NavigationEpisodes(EpisodeDataModule):
    """Tasks whose goals are uniform in [-0.5, 0.5]^2, with the noise of all trajectories drawn beforehand.

    A row of an episode is one trajectory: ``x`` holds the standard normal noise of its actions, shape (tasks, rows,
    horizon, 2), and ``y`` its task's goal, (tasks, rows, 2). Every inner step has support rows of its own, since its
    trajectories are those of another policy; the query rows are the trajectories after adaptation. The splits are
    disjoint streams of random goals.

    Args:
        trajectories: of each inner step, and after adaptation.
        horizon: steps of a trajectory at most.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test.
        seed: names the stream of tasks.
        num_workers: processes that draw ahead; 0 draws in the main process.

    Raises:
        MetaLearningError: a number is below one; or ``model.inner.batch_size`` would cut the trajectories of a step.
    """

    outputs = 2

    def __init__(
        self,
        trajectories: int = 20,
        horizon: int = 100,
        meta_batch_size: int = 20,
        validation_tasks: int = 40,
        test_tasks: int = 600,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        for name, value in {"trajectories": trajectories, "horizon": horizon}.items():
            if value < 1:
                raise MetaLearningError(f"data.{name} is {value}, expected at least 1")
        super().__init__(
            1,
            trajectories,
            trajectories,
            None,
            None,
            meta_batch_size,
            validation_tasks,
            test_tasks,
            seed,
            num_workers,
        )
        self.trajectories = trajectories
        self.horizon = horizon

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
        rows = max(steps, 1) * self.trajectories  # to score on, where no step needs any
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
