"""ProtoMAML: Triantafillou et al., "Meta-Dataset", arXiv 1903.03096, section 3."""

import torch

from lightning_meta import MetaLearner
from lightning_meta.inner import last


class ProtoMAML(MetaLearner):
    """MAML whose last layer starts as a prototypical network's, made for each task from its support set."""

    needs_linear_head = True

    def start(self, params, task):
        weights = self.adapted_params(params)
        features = self.head.features(weights, task.support_x)
        labels = torch.arange(self.head.out_features, device=features.device)
        one_hot = (task.support_y[:, None] == labels).to(features)
        prototypes = (one_hot.T @ features) / one_hot.sum(0)[:, None]
        head = {"weight": 2 * prototypes, "bias": -prototypes.square().sum(1)}
        return weights | {f"{self.head.name}.{name}": value for name, value in head.items()}

    def outer_loss(self, params, task, carry, progress):
        adapted, _ = last(self.adapt(params, task))
        return self.query_loss(adapted, task), carry
