"""Prototypical networks: Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", arXiv 1703.05175."""

from torch import Tensor

from lightning_meta.algorithms.metric_learner import MetricLearner


class PrototypicalNetworks(MetricLearner):
    """Classify by the nearest prototype, the mean of a class's support features.

    For features f, prototype c_n of class n and query x:

        c_n = mean_{i in n} f(x_i),   output_n = -||f(x) - c_n||^2,   p(n | x) = softmax_n(output)
    """

    def compare(self, support: Tensor, membership: Tensor, rows: Tensor) -> Tensor:
        """Minus the squared distances to the prototypes."""
        prototypes = membership @ support / membership.sum(1, keepdim=True)
        return -(rows[:, None] - prototypes).square().sum(-1)
