"""Nearest neighbour, a baseline of the papers' tables: Vinyals et al., arXiv 1606.04080, section 4.1."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.algorithms.metric_learner import NO_STEPS, full_precision, membership
from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.learner.checks import check_backbone, check_regression
from lightning_meta.learner.linear_head import ends_with_linear
from lightning_meta.learner.running import evaluating
from lightning_meta.params import Params


class NearestNeighbour(JointTraining):
    """Classify by the support example whose features have the largest cosine with the query's.

    On raw pixels: a backbone `MLP` without hidden layers, whose last layer is given the pixels themselves.

    Args:
        backbone: a network that gives features, or ends with an ``nn.Linear`` of any width after them, which is not
            used.
    """

    compares = True
    any_ways = True
    needs_linear_head = False

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, NO_STEPS, **settings)

    def adapted_weights(self, params: Params, task: Episode, carry: Any, scale: float = 1.0) -> Iterator[Params]:
        """The backbone's own weights: there are no inner steps."""
        yield self.adapted_params(params)

    def encode(self, weights: Params, x: Tensor) -> Tensor:
        """Features of ``x``, (rows, features)."""
        return self.features(weights, x)

    def features(self, weights: Params, x: Tensor) -> Tensor:
        """What the backbone gives its last ``nn.Linear``, or gives itself where it does not end with one."""
        return super().features(weights, x) if ends_with_linear(self.backbone) else self.run_backbone(weights, x)

    def feature_width(self, source: EpisodeSource) -> int:
        """How many features the network makes of these data."""
        if ends_with_linear(self.backbone):
            return super().feature_width(source)
        episode = source.draw("train", torch.zeros(1, dtype=torch.int64))
        check_backbone(self, source, episode)
        like = next(self.backbone.parameters())
        x = episode.support_x[0].to(like if episode.support_x.is_floating_point() else like.device)
        with torch.no_grad(), evaluating(self):
            return self.features(dict(self.backbone.named_parameters()), x).shape[1]

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
