"""Reptile: Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", arXiv 1803.02999."""

from typing import Any

from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import PolynomialLR

from lightning_meta.episode import Episode
from lightning_meta.inner import InnerLoop, last
from lightning_meta.learner import MetaLearner, Schedule
from lightning_meta.params import Params, detach, half_squared_distance


class Reptile(MetaLearner):
    """Move the initialisation towards the weights that each task is adapted to.

    For tasks i with adapted weights W_i:  phi <- phi + eps (mean_i W_i - phi).

    phi - W_i is the gradient of 1/2 ||phi - W_i||^2 with W_i held constant, so an outer SGD of rate eps is this very
    interpolation, and any other outer optimizer may be given that gradient. Query sets are not used in training.

    Args:
        backbone: the network that is adapted.
        inner: the inner loop; the paper's runs use `Adam` with beta1 = 0.
        optimizer: makes the outer optimizer; SGD of rate 1 is the interpolation with eps = 1.
        lr_scheduler: schedule of the outer step; by default the outer step goes linearly to zero over the run.
        carry_moments: whether the inner optimizer's moments persist across tasks and meta-steps, as in the paper's
            code; evaluation then starts from the trained moments and leaves them as they are.
        serial: run the tasks of a meta-step one after another, each with the moments that the one before it left, as
            the paper's code does; one rank only. Otherwise all start from the same moments, and the mean is carried.
    """

    needs_queries = False
    trains_inner_rule = False

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(),
        *,
        optimizer: OptimizerCallable = lambda parameters: SGD(parameters, lr=1.0),
        lr_scheduler: Schedule | None = PolynomialLR,
        carry_moments: bool = True,
        serial: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, optimizer=optimizer, lr_scheduler=lr_scheduler, **settings)
        self.serial = serial
        self.carry_moments = carry_moments
        if carry_moments:
            self.carry.assign(inner.optimizer.init(self.adapted_params(self.meta_parameters())))

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Half the squared distance to the adapted weights."""
        adapted, state = last(self.adapt(detach(params), task, self.inner_state(carry)))
        return half_squared_distance(self.adapted_params(params), adapted), state if self.carry_moments else carry

    def inner_state(self, carry: Any) -> Any:
        """The carried moments, or fresh ones."""
        return carry if self.carry_moments else None
