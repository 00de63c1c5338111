"""What methods share that classify by comparing features, without an inner loop."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.checks import check_regression
from lightning_meta.learner.linear_head import ends_with_linear
from lightning_meta.params import Params

NO_STEPS = InnerLoop(steps=0, evaluation_steps=0)


class MetricLearner(MetaLearner):
    """Base of methods that learn features by comparing those of queries with those of the support set.

    The features are what the backbone gives its last layer, if that is an ``nn.Linear``, which may have any width and
    is not used; otherwise they are the backbone's outputs, whose number must differ from that of the classes. A
    subclass says how to compare.

    Args:
        backbone: a network that gives features, or ends with an ``nn.Linear`` after them.
    """

    compares = True
    any_ways = True

    def __init__(self, backbone: nn.Module, **settings: Any) -> None:
        super().__init__(backbone, NO_STEPS, **settings)

    @abstractmethod
    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """Outputs for ``rows``, shape (rows, ways): the larger, the likelier the class.

        Args:
            support: features of the support set, (support rows, features).
            membership: 1 where a support row belongs to a class, 0 elsewhere, (ways, support rows).
            rows: features to classify, (rows, features).
        """

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """The loss of comparing the queries, all in one batch, with the support set."""
        weights = self.adapted_params(params)
        outputs = self.decide(task, self.encode(weights, task.support_x), self.encode(weights, task.query_x))
        return self.loss(outputs, task.query_y, reduction="mean"), carry

    def adapted_weights(self, params: Params, task: Episode, carry: Any, scale: float = 1.0) -> Iterator[Params]:
        """The backbone's own weights: there are no inner steps."""
        yield self.adapted_params(params)

    def encode(self, weights: Params, x: Tensor) -> Tensor:
        """Features of ``x``, (rows, features)."""
        return self.head.features(weights, x) if ends_with_linear(self.backbone) else self.run_backbone(weights, x)

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


def membership(task: Episode, ways: int) -> Tensor:
    """Whether a row of the support set belongs to a class, (ways, support rows)."""
    return task.support_y == torch.arange(ways, device=task.support_y.device)[:, None]


def full_precision(features: Tensor) -> torch.autocast:
    """Within it, features are compared as they are, also in mixed precision: small differences decide."""
    return torch.autocast(features.device.type, enabled=False)
