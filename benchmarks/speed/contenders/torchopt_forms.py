"""TorchOpt's differentiable SGD as the inner optimizer: in a loop over tasks, and under ``torch.func.vmap``."""

from collections.abc import Callable

import torch
import torchopt
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from contenders import (
    INNER_RATE,
    Contender,
    Problem,
    UnavailableError,
    gradients,
    mapped_step,
    network_of,
    outer_optimizer,
)
from lightning_meta.params import Params


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
    inner = torchopt.sgd(INNER_RATE)

    def adapted(fast: Params, gradient: Callable[[Params], Params]) -> Params:
        state = inner.init(fast)
        for _ in range(problem.case.inner_steps):
            updates, state = inner.update(gradient(fast), state, params=fast, inplace=False)
            fast = torchopt.apply_updates(fast, updates, inplace=False)
        return fast

    return mapped_step(problem, network_of(problem), adapted)


def _refuse_reptile(problem: Problem) -> None:
    if problem.case.algorithm == "Reptile":
        raise UnavailableError("TorchOpt has no Reptile, whose inner optimizer need not be differentiable")
