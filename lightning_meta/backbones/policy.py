"""The Gaussian policy of few-shot reinforcement learning."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_meta.backbones.mlp import MLP

LOG_STD_MIN = math.log(1e-6)


class GaussianPolicy(nn.Module):
    """A multilayer perceptron for the mean action, and a log standard deviation that no observation changes.

    Finn, Abbeel and Levine (arXiv 1703.03400), section 5.3, with the widths and the initialisation of Deleu's code
    (tristandeleu/pytorch-maml-rl): Xavier's uniform weights, biases of zero, standard deviations of one. Both parts are
    adapted.

    Args:
        outputs: entries of an action.
        inputs: entries of an observation.
        hidden: widths of the hidden layers.
        activation: class of the activation.
    """

    def __init__(
        self,
        outputs: int,
        inputs: int = 2,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        self.mean = MLP(outputs, inputs, hidden, activation)
        for part in self.mean:
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Means and log standard deviations, (rows, 2 * outputs), of the actions at ``x``, (rows, inputs)."""
        mean: Tensor = self.mean(x)
        return torch.cat([mean, self.log_std.clamp(min=LOG_STD_MIN).expand_as(mean)], -1)
