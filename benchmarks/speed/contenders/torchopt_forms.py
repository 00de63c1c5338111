"""TorchOpt's differentiable SGD as the inner optimizer: in a loop over tasks, and under ``torch.func.vmap``."""

import torch
import torchopt
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from contenders import INNER_RATE, Contender, Problem, UnavailableError, gradients, network_of, outer_optimizer
from lightning_meta.params import Params, map_params


def loop(problem: Problem) -> Contender:
    """One task after another, with gradients by autograd, as in its few-shot examples."""
    _refuse_reptile(problem)
    network = network_of(problem)
    params = dict(network.named_parameters())
    optimizer, inner = outer_optimizer(problem, params.values()), torchopt.sgd(INNER_RATE)
    second_order = problem.case.algorithm == "MAML"

    def step() -> None:
        optimizer.zero_grad()
        for support_x, support_y, query_x, query_y in zip(*problem.episode[:4], strict=True):
            fast = params
            state = inner.init(fast)
            for _ in range(problem.case.inner_steps):
                loss = cross_entropy(functional_call(network, fast, (support_x,)), support_y)
                grads = torch.autograd.grad(loss, list(fast.values()), create_graph=second_order)
                updates, state = inner.update(dict(zip(fast, grads, strict=True)), state, params=fast, inplace=False)
                fast = torchopt.apply_updates(fast, updates, inplace=False)
            loss = cross_entropy(functional_call(network, fast, (query_x,)), query_y)
            (loss / problem.case.tasks).backward()
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def vmapped(problem: Problem) -> Contender:
    """All tasks at once, with PyTorch's batch norm: TorchOpt brings no norm of its own."""
    _refuse_reptile(problem)
    network = network_of(problem)
    params = dict(network.named_parameters())
    optimizer, inner = outer_optimizer(problem, params.values()), torchopt.sgd(INNER_RATE)
    first_order = problem.case.algorithm == "FOMAML"

    def loss(weights: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, weights, (x,)), y)

    def task_loss(weights: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        fast, state = weights, inner.init(weights)
        for _ in range(problem.case.inner_steps):
            grads = torch.func.grad(loss)(
                map_params(Tensor.detach, fast) if first_order else fast, support_x, support_y
            )
            updates, state = inner.update(grads, state, params=fast, inplace=False)
            fast = torchopt.apply_updates(fast, updates, inplace=False)
        return loss(fast, query_x, query_y)

    def mean_loss(weights: Params) -> Tensor:
        return torch.func.vmap(task_loss, (None, 0, 0, 0, 0))(weights, *problem.episode[:4]).mean()

    def step() -> None:
        for name, grad in torch.func.grad(mean_loss)(params).items():
            params[name].grad = grad.detach()
        optimizer.step()

    return Contender(step, gradients(problem, params.values()))


def _refuse_reptile(problem: Problem) -> None:
    if problem.case.algorithm == "Reptile":
        raise UnavailableError("TorchOpt has no Reptile, whose inner optimizer need not be differentiable")
