"""What methods share that classify by comparing features, without an inner loop."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, EpisodeSource, Predictions
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.checks import check_regression
from lightning_meta.learner.running import run_both_protocols
from lightning_meta.params import Params

NO_STEPS = InnerLoop(steps=0, evaluation_steps=0)


class MetricLearner(MetaLearner):
    """Base of methods that learn features by comparing those of queries with those of the support set.

    The features are what the backbone gives its last layer, which must be an ``nn.Linear`` and is not used. A subclass
    says how to compare.

    Args:
        backbone: a network that ends with an ``nn.Linear``.
    """

    needs_linear_head = True

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
        support, query = self.head.features(weights, task.support_x), self.head.features(weights, task.query_x)
        with full_precision(support):
            outputs = self.compare(support, membership(task, self.head.out_features).to(support), query)
        return self.loss(outputs, task.query_y, reduction="mean"), carry

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task, each (1, rows, ways): there are no inner steps."""
        run = partial(self.head.features, self.adapted_params(params))
        features = run_both_protocols(run, task, self.task_map.vectorised)
        return compare_all(self.compare, features, membership(task, self.head.out_features))

    def check_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Refuse real targets, which belong to no class."""
        check_regression(episode, type(source).__name__, type(self).__name__)
        super().check_data(source, episode)


def membership(task: Episode, ways: int) -> Tensor:
    """Whether a row of the support set belongs to a class, (ways, support rows)."""
    return task.support_y == torch.arange(ways, device=task.support_y.device)[:, None]


def compare_all(compare: Callable[..., Tensor], features: Predictions, membership: Tensor) -> Predictions:
    """``compare`` for the features of support set and queries, each (1, rows, ways)."""
    with full_precision(features.support):
        members = membership.to(features.support)
        return Predictions(*(compare(features.support, members, rows)[None] for rows in features))


def full_precision(features: Tensor) -> torch.autocast:
    """Within it, features are compared as they are, also in mixed precision: small differences decide."""
    return torch.autocast(features.device.type, enabled=False)
