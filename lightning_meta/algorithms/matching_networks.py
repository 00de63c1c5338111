"""Matching networks: Vinyals et al., "Matching Networks for One Shot Learning", arXiv 1606.04080."""

import torch
from torch import Tensor
from torch.nn import functional

from lightning_meta.algorithms.metric_learner import MetricLearner


class MatchingNetworks(MetricLearner):
    """Classify by attention over the support set, without full context embeddings.

    For features f, support examples x_i with labels y_i and a query x:

        a_i = softmax_i cos(f(x), f(x_i)),   p(n | x) = sum_i a_i [y_i = n],   output_n = log p(n | x)
    """

    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """Logarithms of the attention that each class receives."""
        cosine = functional.normalize(rows, dim=-1) @ functional.normalize(support, dim=-1).T
        attention = cosine.log_softmax(-1)  # (rows, support rows)
        others = (1 - membership) * torch.finfo(rows.dtype).min
        return (attention[:, None] + others).logsumexp(-1)
