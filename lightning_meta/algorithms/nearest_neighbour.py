"""Nearest neighbour, a baseline of the papers' tables: Vinyals et al., arXiv 1606.04080, section 4.1."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.algorithms.metric_learner import NO_STEPS, full_precision, membership
from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.learner.checks import check_regression
from lightning_meta.params import Params


class NearestNeighbour(JointTraining):
    """Classify by the support example whose features have the largest cosine with the query's.

    On raw pixels: a backbone `MLP` without hidden layers, whose last layer is given the pixels themselves.

    Args:
        backbone: a network that ends with an ``nn.Linear`` of any width, which is not used.
    """

    compares = True
    any_ways = True

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, NO_STEPS, **settings)

    def adapted_weights(self, params: Params, task: Episode, carry: Any, scale: float = 1.0) -> Iterator[Params]:
        """The backbone's own weights: there are no inner steps."""
        yield self.adapted_params(params)

    def encode(self, weights: Params, x: Tensor) -> Tensor:
        """Features of ``x``, (rows, features)."""
        return self.head.features(weights, x)

    def decide(self, task: Episode, support: Tensor, rows: Tensor) -> Tensor:
        """Compare features, (rows, ways)."""
        with full_precision(support):
            return self.compare(
                support, membership(task, len(task.classes) or self.head.out_features).to(support), rows
            )

    def check_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Refuse real targets, which belong to no class."""
        check_regression(episode, type(source).__name__, type(self).__name__)
        super().check_data(source, episode)

    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """For each class the largest cosine with one of its support examples, (rows, ways)."""
        cosine = functional.normalize(rows, dim=-1) @ functional.normalize(support, dim=-1).T
        others = (1 - membership) * torch.finfo(rows.dtype).min
        return (cosine[:, None] + others).amax(-1)
