"""Nearest neighbour, a baseline of the papers' tables: Vinyals et al., arXiv 1606.04080, section 4.1."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.algorithms.metric_learner import NO_STEPS, compare_all, membership
from lightning_meta.episode import Episode, EpisodeSource, Predictions
from lightning_meta.learner.checks import check_regression
from lightning_meta.learner.running import run_both_protocols
from lightning_meta.params import Params


class NearestNeighbour(JointTraining):
    """Classify by the support example whose features have the largest cosine with the query's.

    On raw pixels: a backbone `MLP` without hidden layers, whose last layer is given the pixels themselves.

    Args:
        backbone: a network that ends with an ``nn.Linear``, which is not used.
    """

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, NO_STEPS, **settings)

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task, each (1, rows, ways): there are no inner steps."""
        run = partial(self.head.features, self.adapted_params(params))
        features = run_both_protocols(run, task, self.task_map.vectorised)
        return compare_all(self.compare, features, membership(task, self.head.out_features))

    def check_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Refuse real targets, which belong to no class."""
        check_regression(episode, type(source).__name__, type(self).__name__)
        super().check_data(source, episode)

    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """For each class the largest cosine with one of its support examples, (rows, ways)."""
        cosine = functional.normalize(rows, dim=-1) @ functional.normalize(support, dim=-1).T
        others = (1 - membership) * torch.finfo(rows.dtype).min
        return (cosine[:, None] + others).amax(-1)
