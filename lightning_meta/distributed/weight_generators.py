"""How much each worker's copy counts when the copies are joined: the weight generators of distributed MAML.

Soulier 2020 (thesis, TH Koeln). Its four generators are known by name, with one example: five workers with losses 2, 3,
8, 19, 20 and accuracies .89, .88, .60, .43, .40. What it leaves open is said where it is decided.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_meta.errors import MetaLearningError


class WeightGenerator(ABC):
    """Weights of the workers' copies from the losses that they met; the joined copy is the weighted sum."""

    @abstractmethod
    def __call__(self, losses: Tensor) -> Tensor:
        """Weights (workers,) that sum to one, the same on every worker.

        Args:
            losses: (workers, steps) outer losses of each worker's own tasks in its last meta-steps, the newest last;
                at least one step and at most five.
        """


class ArithmeticMean(WeightGenerator):
    """Every copy counts the same, whatever its loss: w_i = 1 / W.

    In the thesis's example every worker has the weight .2, and the weighted mean of the accuracies is .64:

    >>> losses = torch.tensor([[2.0], [3.0], [8.0], [19.0], [20.0]])
    >>> [round(weight, 4) for weight in ArithmeticMean()(losses).tolist()]
    [0.2, 0.2, 0.2, 0.2, 0.2]
    """

    def __call__(self, losses: Tensor) -> Tensor:
        return losses.new_full((len(losses),), 1 / len(losses))


class LossMedian(WeightGenerator):
    """The copy whose newest loss is the median is taken, and the others are dropped: w_m = 1.

    Of an even number of workers, the lower one of the two in the middle is the median, so that one worker's copy is
    taken and never a mixture; of two workers it is the better one. Of equal losses, the lowest rank comes first. The
    thesis says neither.

    In the thesis's example worker 3 has the median, 8, and its accuracy, .60, is the joined copy's:

    >>> losses = torch.tensor([[2.0], [3.0], [8.0], [19.0], [20.0]])
    >>> LossMedian()(losses).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """

    def __call__(self, losses: Tensor) -> Tensor:
        newest = losses[:, -1]
        median = newest.argsort(stable=True)[(len(newest) - 1) // 2]
        weights = torch.zeros_like(newest)
        weights[median] = 1
        return weights


class LossWeightedMean(WeightGenerator):
    """A copy counts the more, the lower its newest loss L_i: w_i = (1 / L_i) / sum_j (1 / L_j).

    These weights minimise sum_i L_i w_i^2 among those that sum to one: each copy's part is priced by its loss, and the
    square keeps more than one in. (With multiplier 2 m: L_i w_i = m for every i, hence w_i is proportional to 1 / L_i.)
    It is how estimates are averaged whose variances are L_i. The thesis's own formula is not at hand. In the limit of a
    loss of 0, the workers that have it share all the weight equally, and so they are weighted here.

    In the thesis's example, 1/2 + 1/3 + 1/8 + 1/19 + 1/20 = 2419/2280, so the weights are 1140, 760, 285, 120 and 114
    parts of 2419, and the weighted mean of the accuracies is 1951.6 / 2419 = .807:

    >>> losses = torch.tensor([[2.0], [3.0], [8.0], [19.0], [20.0]])
    >>> [round(weight, 4) for weight in LossWeightedMean()(losses).tolist()]
    [0.4713, 0.3142, 0.1178, 0.0496, 0.0471]
    """

    def __call__(self, losses: Tensor) -> Tensor:
        """As `WeightGenerator`.

        Raises:
            MetaLearningError: a loss is negative.
        """
        return _inverse(losses[:, -1])


class LossMovingAverage(WeightGenerator):
    """A copy counts the more, the lower the mean of its last five losses, weighted as in `LossWeightedMean`.

    w_i = (1 / M_i) / sum_j (1 / M_j) with M_i = mean of worker i's losses of the last five meta-steps, or of as many as
    there are yet. The mean is over meta-steps, also where the workers are joined less often or more: the thesis says
    "the last five losses" and not of what.

    In the thesis's example, each worker having met its loss five times or losses around it with that mean, the weights
    are those of `LossWeightedMean`:

    >>> around = torch.tensor([-1.0, 1.0, 0.5, -0.5, 0.0])
    >>> losses = torch.tensor([2.0, 3.0, 8.0, 19.0, 20.0])[:, None] + around
    >>> [round(weight, 4) for weight in LossMovingAverage()(losses).tolist()]
    [0.4713, 0.3142, 0.1178, 0.0496, 0.0471]
    """

    def __call__(self, losses: Tensor) -> Tensor:
        """As `WeightGenerator`.

        Raises:
            MetaLearningError: a mean loss is negative.
        """
        return _inverse(losses.mean(1))


def _inverse(losses: Tensor) -> Tensor:
    """Weights in inverse proportion to the losses (workers,)."""
    lowest = losses.min()
    if lowest < 0:
        raise MetaLearningError(
            f"a worker's outer loss is {lowest:.4g}, but LossWeightedMean and LossMovingAverage weigh by 1 / loss: set "
            "the generator of JoinWeights to ArithmeticMean or LossMedian"
        )
    inverse = torch.where(losses == lowest, 1, lowest / losses)  # times the lowest, so that 0 divides nothing
    return inverse / inverse.sum()
