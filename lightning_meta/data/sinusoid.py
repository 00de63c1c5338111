"""Few-shot regression of sine waves (Finn et al., arXiv 1703.03400, section 5.1; Nichol et al., arXiv 1803.02999)."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.episode import Episode, Split


@dataclass(kw_only=True, eq=False)
class SinusoidEpisodes(EpisodeDataModule):
    """Tasks y = A sin(x - p) with A in [0.1, 5), phase p in [0, ``max_phase``) and x in [-5, 5).

    Finn et al. draw phases up to pi, Nichol et al. up to 2 pi. The splits are disjoint streams of random waves. A task
    is one wave: ``shots`` are points to adapt on, ``queries`` points to score on.

    Args:
        max_phase: upper end of the phases, in radians.
    """

    outputs = 1
    drawn_together = 32

    ways: int = field(default=1, init=False)
    train_ways: int | None = field(default=None, init=False)
    shots: int = 10
    queries: int = 10
    max_phase: float = math.pi
    meta_batch_size: int = 25

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The waves of these numbers, at random points."""
        random = TaskRandom(self.seed, split, numbers)
        amplitude = random.uniform(0.1, 5.0, 1, 1)
        phase = random.uniform(0.0, self.max_phase, 1, 1)
        shots = self.shots_in(split)
        x = random.uniform(-5.0, 5.0, shots + self.queries_in(split), 1)
        y = amplitude * torch.sin(x - phase)
        order = inner_order(random, shots, *self.inner_batches(split))
        support, query = (x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:])
        return Episode(*support, *query, order, numbers, numbers.new_empty(len(numbers), 0))
