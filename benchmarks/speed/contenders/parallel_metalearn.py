"""parallel-metalearn's own step, which maps an inner loop by ``torch.func.vmap``, with its batch norm and PyTorch's."""

from collections.abc import Callable
from itertools import repeat
from typing import Any

from metalearn.algorithms import MAML
from metalearn.inner_optimizers import InnerSGD
from metalearn.loss import CategoricalAccuracy, CrossEntropy
from metalearn.model_wrappers import MAML_Model
from metalearn.nn_models.basic_layers.BatchNormalization import BatchNorm
from torch import Tensor, nn

from contenders import INNER_RATE, Contender, Problem, UnavailableError, gradients, network_of, outer_optimizer


class _WithoutContext(nn.Module):
    """A module that its wrapper calls with the number of the step and other context."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        result: Tensor = self.module(x)
        return result


def with_its_norm(problem: Problem) -> Contender:
    """With the norm that it brings for ``vmap``."""
    return _contender(problem, lambda features: BatchNorm(features, track_running_stats=False))


def with_torch_norm(problem: Problem) -> Contender:
    """With PyTorch's fused norm, whose second derivative under ``vmap`` is wrong."""
    return _contender(problem, None)


def _contender(problem: Problem, norm: Callable[[int], nn.Module] | None) -> Contender:
    case, (support_x, support_y, query_x, query_y, *_) = problem.case, problem.episode
    if case.algorithm == "Reptile":
        raise UnavailableError(
            "its Reptile takes every inner step on the whole support set, from fresh moments of Adam"
        )
    network = network_of(problem, norm)
    model = MAML_Model(_WithoutContext(network), _WithoutContext(nn.Identity()))
    inner = InnerSGD(
        model.get_fast_weights(), first_order=case.algorithm == "FOMAML", inner_lr=INNER_RATE,
        max_inner_steps=case.inner_steps, learn_lr=False,
    )  # fmt: skip
    algorithm = MAML(
        model=model, optimizer=outer_optimizer(problem, network.parameters()), inner_optimizer=inner,
        support_loss_fn=CrossEntropy(CategoricalAccuracy()), inner_steps=case.inner_steps, chunk_size=case.tasks,
        device=support_x.device,
    )  # fmt: skip
    tasks = repeat((support_x, {"labels": support_y}, query_x, {"labels": query_y}))
    return Contender(lambda: algorithm.step(tasks), gradients(problem, network.parameters()))
