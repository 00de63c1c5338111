"""What `throughput.py` compares: the same meta-step on the same batch from the same weights, by library.

Every function that is named in `CONTENDERS` takes a `Problem` and returns a `Contender`, or raises `UnavailableError`.
"""

import copy
import importlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from cases import Case
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lightning_meta.backbones.norms import BatchNorm
from lightning_meta.episode import Episode
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import chunk_gradient, meta_gradient
from lightning_meta.params import Params, flatten, map_params

Step = Callable[[], object]
INNER_RATE, REPTILE_RATE, REPTILE_BATCH = 0.4, 1e-3, 10
TOLERANCE = 1e-6  # relative, in float64; parallel-metalearn keeps its inner rate in float32


class UnavailableError(Exception):
    """Why a contender cannot run a case."""


class Problem(NamedTuple):
    """A batch of tasks, and the weights that all start from."""

    case: Case
    learner: MetaLearner
    episode: Episode


class Contender(NamedTuple):
    """One library's way through a problem."""

    step: Step  # the meta-gradient and an outer step
    gradient: Callable[[], Params]  # of the step before, by our names
    serial: bool = False  # whether the inner Adam's moments go from task to task, and not from meta-step to meta-step


CONTENDERS = {
    "plain torch loop": ("plain_torch", "loop"),
    "torch.func.vmap": ("plain_torch", "vmapped"),
    "torch.func.vmap, torch's norm": ("plain_torch", "vmapped_with_torch_norm"),
    "learn2learn, computation": ("learn2learn_examples", "computation"),
    "TorchOpt, loop": ("torchopt_forms", "loop"),
    "TorchOpt, vmap, torch's norm": ("torchopt_forms", "vmapped"),
    "parallel-metalearn, its norm": ("parallel_metalearn", "with_its_norm"),
    "parallel-metalearn, torch's norm": ("parallel_metalearn", "with_torch_norm"),
    "JAX, vmap of convolutions": ("jax_forms", "obvious"),
    "JAX, scan of products": ("jax_forms", "best"),
}


def build(name: str, problem: Problem) -> Contender:
    """The contender of that name.

    Raises:
        UnavailableError: where the library is not installed, or cannot run the case.
    """
    module, function = CONTENDERS[name]
    try:
        built: Contender = getattr(importlib.import_module(f"contenders.{module}"), function)(problem)
    except ImportError as error:
        raise UnavailableError(f"not installed: {error.name}") from error
    return built


def exactly(problem: Problem, tasks: int | None = None) -> Problem:
    """The same in float64, of the first so many tasks."""
    episode = Episode(
        *(rows[:tasks].double() if rows.is_floating_point() else rows[:tasks] for rows in problem.episode)
    )
    case = problem.case._replace(tasks=episode.tasks)
    return Problem(case, copy.deepcopy(problem.learner).double(), episode)


def our_gradient(problem: Problem, serial: bool = False) -> Params:
    """The meta-gradient as it is defined, without graph."""
    learner, episode = problem.learner, problem.episode
    gradient, progress = chunk_gradient(learner.outer_loss), torch.zeros((), device=learner.device)
    carry = learner.training_carry(episode)
    return meta_gradient(gradient, learner.meta_parameters(), episode, carry, progress, chunk=4, serial=serial).grads


def relative_error(problem: Problem, gradient: Params, reference: Params) -> float:
    """The distance of the two over the length of the second, as vectors.

    Biases before a batch norm are left out: their gradient is zero, and Reptile's Adam makes steps of its rounding.
    """
    before_norms = {f"backbone.{name}.bias" for name, part in problem.learner.backbone.named_modules()
                    if isinstance(part, nn.Conv2d)}  # fmt: skip
    ours, exact = (
        flatten({name: params[name].double() for name in reference if name not in before_norms})
        for params in (gradient, reference)
    )
    return ((ours - exact).norm() / exact.norm()).item()


def network_of(problem: Problem, norm: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """Our network with our weights and another norm, PyTorch's where none is given."""
    network = copy.deepcopy(problem.learner.backbone)
    for name, part in list(network.named_modules()):
        if isinstance(part, BatchNorm):
            features = part.bias.numel()
            network.set_submodule(name, norm(features) if norm else nn.BatchNorm2d(features, track_running_stats=False))
    network.load_state_dict(problem.learner.backbone.state_dict())
    return network.to(next(problem.learner.parameters()))


def outer_optimizer(problem: Problem, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The one of our learner."""
    if problem.case.algorithm == "Reptile":
        return torch.optim.SGD(parameters, 1.0)
    return torch.optim.Adam(parameters, 1e-3)


def mapped_step(
    problem: Problem, network: nn.Module, adapted: Callable[[Params, Callable[[Params], Params]], Params]
) -> Contender:
    """MAML or FOMAML of all tasks at once, under ``torch.func.vmap``.

    Args:
        problem: the tasks.
        network: whose parameters learn.
        adapted: weights after the inner steps, from those before and the gradient of the support loss.
    """
    params = dict(network.named_parameters())
    optimizer = outer_optimizer(problem, params.values())
    first_order = problem.case.algorithm == "FOMAML"

    def loss(weights: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, weights, (x,)), y)

    def task_loss(weights: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        def inner_gradient(fast: Params) -> Params:
            start = map_params(Tensor.detach, fast) if first_order else fast
            grads: Params = torch.func.grad(loss)(start, support_x, support_y)
            return grads

        return loss(adapted(weights, inner_gradient), query_x, query_y)

    def mean_loss(weights: Params) -> Tensor:
        losses: Tensor = torch.func.vmap(task_loss, (None, 0, 0, 0, 0))(weights, *problem.episode[:4])
        return losses.mean()

    def step() -> None:
        for name, grad in torch.func.grad(mean_loss)(params).items():
            params[name].grad = grad.detach()
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def gradients(problem: Problem, parameters: Iterable[Tensor]) -> Callable[[], Params]:
    """What an optimizer left in ``grad`` of parameters that are in the order of ours."""
    names, parameters = list(problem.learner.meta_parameters()), list(parameters)
    return lambda: {name: parameter.grad.clone() for name, parameter in zip(names, parameters, strict=True)}
