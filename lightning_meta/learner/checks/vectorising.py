"""A trial before training: do tasks that are vectorised give the gradient that they give one by one?"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping import chunk_gradient
from lightning_meta.params import Params, trainable

_SUPPORT, _QUERIES = 4, 2  # rows of the trial's tasks at least, which need not learn anything


def refuse_unmappable(learner: nn.Module, backbone: str, outer_loss: str, task: Episode, carry: Any) -> None:
    """Compare the meta-gradient of two vectorised tasks of noise with that of a loop, in float64 where it can be.

    PyTorch's norms have shown that ``torch.func.vmap`` can differentiate wrongly without an error.

    Args:
        learner: what is about to be trained; it is left as it is.
        backbone: name of its module whose parts are to blame.
        outer_loss: name of its method.
        task: one real task, for its shapes and labels.
        carry: what the tasks start from; of one task where every task has its own.

    Raises:
        MetaLearningError: the two differ, or vectorising fails; with the module where it does.
    """
    exact = copy.copy(learner)  # with modules of its own in float64
    exact.__dict__["_modules"] = {
        name: copy.deepcopy(part).double() for name, part in learner._modules.items() if part is not None
    }
    carry_of = {
        exact: pytree.tree_map(Tensor.double, carry),
        learner: carry,  # where a loss or a backbone brings float32 of its own
    }
    for trial, tolerance in ((exact, 1e-6), (learner, 1e-2)):
        tasks = _two_tasks(task, next(trial.parameters()).dtype)
        gradient = partial(_gradient, trial, outer_loss, carry_of[trial])
        network = trial.get_submodule(backbone)
        try:
            with _running(network) as running:
                looped = [gradient(single) for single in tasks.chunks(1)]
        except (RuntimeError, NotImplementedError) as error:
            failure = _where(network, running, error), error
            continue
        try:
            with _running(network) as running:
                mapped = gradient(tasks)
        except (RuntimeError, NotImplementedError) as error:
            raise MetaLearningError(
                f"model.{backbone} cannot be vectorised over tasks, because of {_where(network, running, error)} Set "
                "model.task_chunk to 1, which takes tasks one by one, or replace this module"
            ) from error
        rest = sum((mapped[name] - looped[0][name] - looped[1][name]).square().sum() for name in mapped)
        size = sum(grad.square().sum() for grad in mapped.values())
        if not rest <= tolerance**2 * size:  # nor where one is not a number
            kinds = sorted({type(part).__name__ for part in network.modules() if not list(part.children())})
            raise MetaLearningError(
                f"model.{backbone} gets a wrong meta-gradient when tasks are vectorised: it is off by "
                f"{float(rest / size) ** 0.5:.1g} of its size, although nothing failed. Set model.task_chunk to 1, or "
                f"replace what torch.func.vmap differentiates wrongly, which is one of {', '.join(kinds)}"
            )
        return
    raise MetaLearningError(f"the meta-gradient cannot be computed, because of {failure[0]}") from failure[1]


def _gradient(learner: nn.Module, outer_loss: str, carry: Any, tasks: Episode) -> Params:
    params = trainable(learner)
    progress = torch.zeros((), dtype=next(iter(params.values())).dtype)
    if learner.task_carry:
        carry = pytree.tree_map(lambda leaf: leaf[:1].expand(len(tasks.number), *leaf.shape[1:]), carry)
    return chunk_gradient(getattr(learner, outer_loss), bool(learner.task_carry))(params, tasks, carry, progress).grads


def _where(network: nn.Module, running: list[str], error: Exception) -> str:
    name = running[-1] if running else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return f"{name or 'its root'} ({type(network.get_submodule(name)).__name__}): {reason}"


def _two_tasks(task: Episode, dtype: torch.dtype) -> Episode:
    """Tasks of few rows, noise where the inputs are numbers, so that no two rounding errors decide between equals."""
    generator = torch.Generator().manual_seed(0)

    def rows(tensor: Tensor, count: int) -> Tensor:
        spread = torch.linspace(0, len(tensor) - 1, min(count, len(tensor))).long()  # over the classes
        pair = torch.stack([tensor[spread], tensor[spread]])
        if not pair.is_floating_point():
            return pair
        return torch.rand(pair.shape, generator=generator, dtype=dtype)

    count = min(max(_SUPPORT, task.classes.shape[-1]), len(task.support_x))  # some of every class
    order = task.inner_order[None].expand(2, -1, -1)[:, :, :count] % count
    support = rows(task.support_x, count), rows(task.support_y, count)
    queries = rows(task.query_x, _QUERIES), rows(task.query_y, _QUERIES)
    return Episode(*support, *queries, order, torch.arange(2), task.classes.expand(2, -1))


@contextmanager
def _running(network: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, the innermost last, also after an error."""
    running: list[str] = []

    def leave(*_: Any) -> None:
        running.pop()

    hooks = [part.register_forward_hook(leave) for part in network.modules()]
    for name, part in network.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
