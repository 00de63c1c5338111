"""PyTorch alone: a loop over tasks by autograd, and ``torch.func.vmap`` over all of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from contenders import (
    INNER_RATE,
    REPTILE_RATE,
    Contender,
    Problem,
    UnavailableError,
    gradients,
    mapped_step,
    network_of,
    outer_optimizer,
)
from lightning_meta.params import Params, map_params


def loop(problem: Problem) -> Contender:
    """One task after another, whose gradients add up in ``grad``."""
    network = network_of(problem)
    params = dict(network.named_parameters())
    optimizer = outer_optimizer(problem, params.values())
    episode, tasks = problem.episode, problem.case.tasks
    if problem.case.algorithm == "Reptile":
        return _reptile(problem, network)

    def loss(weights: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, weights, (x,)), y)

    second_order = problem.case.algorithm == "MAML"

    def step() -> None:
        optimizer.zero_grad()
        for support_x, support_y, query_x, query_y in zip(*episode[:4], strict=True):
            fast = params
            for _ in range(problem.case.inner_steps):
                inner = loss(fast, support_x, support_y)
                grads = torch.autograd.grad(inner, list(fast.values()), create_graph=second_order)
                fast = map_params(lambda w, g: w - INNER_RATE * g, fast, dict(zip(fast, grads, strict=True)))
            (loss(fast, query_x, query_y) / tasks).backward()
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def _reptile(problem: Problem, network: nn.Module) -> Contender:
    """Reptile with an inner Adam without momentum, written out; all tasks start from the same moments."""
    params = dict(network.named_parameters())
    optimizer = outer_optimizer(problem, params.values())
    episode = problem.episode
    carried, count = [torch.zeros_like(weight) for weight in params.values()], 0

    def step() -> None:
        nonlocal carried, count
        optimizer.zero_grad()
        squares, adapted = [], []
        for x, y, order in zip(episode.support_x, episode.support_y, episode.inner_order, strict=True):
            fast, square = params, carried
            for number, rows in enumerate(order, count + 1):
                loss = cross_entropy(functional_call(network, fast, (x[rows],)), y[rows])
                grads = torch.autograd.grad(loss, list(fast.values()))
                square = [0.999 * s + 0.001 * g * g for s, g in zip(square, grads, strict=True)]
                correction = (1 - 0.999**number) ** 0.5
                moves = (g / (s.sqrt() / correction + 1e-8) for g, s in zip(grads, square, strict=True))
                fast = {
                    name: (weight.detach() - REPTILE_RATE * move).requires_grad_()
                    for (name, weight), move in zip(fast.items(), moves, strict=True)
                }
            squares.append(square)
            adapted.append([weight.detach() for weight in fast.values()])
        for weight, *ends in zip(params.values(), *adapted, strict=True):
            weight.grad = weight.detach() - torch.stack(ends).mean(0)
        carried = [torch.stack(parts).mean(0) for parts in zip(*squares, strict=True)]
        count += episode.inner_order.shape[1]
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def vmapped(problem: Problem) -> Contender:
    """``torch.func.grad`` of ``torch.func.vmap`` over all tasks with our network, and nothing else."""
    learner, episode = problem.learner, problem.episode
    params = {name: nn.Parameter(value.detach().clone()) for name, value in learner.meta_parameters().items()}
    optimizer = outer_optimizer(problem, params.values())
    progress = torch.zeros((), device=learner.device)

    def mean_loss(params: Params) -> Tensor:
        losses, _ = torch.func.vmap(learner.outer_loss, (None, 0, None, None))(
            params, episode, learner.carry.tree(), progress
        )
        return losses.mean()

    def step() -> None:
        for name, grad in torch.func.grad(mean_loss)(params).items():
            params[name].grad = grad.detach()
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def vmapped_with_torch_norm(problem: Problem) -> Contender:
    """The same with PyTorch's fused batch norm, whose second derivative under ``vmap`` is wrong."""
    if problem.case.algorithm == "Reptile":
        raise UnavailableError("differs from torch.func.vmap in the norm alone: see MAML and FOMAML")

    def adapted(fast: Params, gradient: Callable[[Params], Params]) -> Params:
        for _ in range(problem.case.inner_steps):
            fast = map_params(lambda w, g: w - INNER_RATE * g, fast, gradient(fast))
        return fast

    return mapped_step(problem, network_of(problem), adapted)
