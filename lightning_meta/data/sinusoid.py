"""Few-shot regression of sine waves (Finn et al., arXiv 1703.03400, section 5.1; Nichol et al., arXiv 1803.02999)."""

import math

import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.episode import Episode, Split


class SinusoidEpisodes(EpisodeDataModule):
    """Tasks y = A sin(x - p) with A in [0.1, 5), phase p in [0, ``max_phase``) and x in [-5, 5).

    Finn et al. draw phases up to pi, Nichol et al. up to 2 pi. The splits are disjoint streams of random waves.

    Args:
        shots: points to adapt on.
        queries: points to score on.
        train_shots: points to adapt on in training; ``shots`` when None.
        train_queries: points to score on in training; ``queries`` when None.
        max_phase: upper end of the phases, in radians.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test.
        seed: names the stream of tasks.
        num_workers: processes that draw ahead; 0 draws in the main process.
    """

    outputs = 1

    def __init__(
        self,
        shots: int = 10,
        queries: int = 10,
        train_shots: int | None = None,
        train_queries: int | None = None,
        max_phase: float = math.pi,
        meta_batch_size: int = 25,
        validation_tasks: int = 100,
        test_tasks: int = 600,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            1,
            shots,
            queries,
            train_shots,
            train_queries,
            meta_batch_size,
            validation_tasks,
            test_tasks,
            seed,
            num_workers,
        )
        self.max_phase = max_phase

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The waves of these numbers, seen at random points."""
        random = TaskRandom(self.seed, split, numbers)
        amplitude = random.uniform(0.1, 5.0, 1, 1)
        phase = random.uniform(0.0, self.max_phase, 1, 1)
        shots = self.shots[split]
        x = random.uniform(-5.0, 5.0, shots + self.queries[split], 1)
        y = amplitude * torch.sin(x - phase)
        order = inner_order(random, shots, *self.inner_batches(split))
        support, query = (x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:])
        return Episode(*support, *query, order, numbers, numbers.new_empty(len(numbers), 0))
