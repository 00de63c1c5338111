"""The meta-gradient added up from chunks whose results the next call overwrites, as those of a CUDA graph are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode
from lightning_meta.mapping import MetaGradient, meta_gradient
from lightning_meta.params import Params

pytestmark = pytest.mark.usefixtures("float64")

TASKS = 5
EPISODE = Episode(*(torch.arange(TASKS) for _ in range(7)))


def gradient(params: Params, tasks: Episode, carry: Any, progress: Tensor) -> MetaGradient:
    """Of losses that are linear in the number of the task, with a carry of one sort or the other."""
    numbers = tasks.task_ids.double() + 1
    grads = {name: numbers.sum() * value for name, value in params.items()}
    per_task = carry["memory"].dim() == 2
    memory = carry["memory"] + numbers[:, None] if per_task else carry["memory"] * len(numbers) + numbers.sum()
    return MetaGradient(numbers + progress, grads, {"memory": memory, "none": {}})


def overwriting(function: Callable[..., MetaGradient]) -> Callable[..., MetaGradient]:
    """The same function with one place for its results, by their shapes, into which every call writes."""
    places: dict[Any, list[Tensor]] = {}

    def run(*arguments: Any) -> MetaGradient:
        leaves, spec = pytree.tree_flatten(function(*arguments))
        own = places.setdefault(tuple(leaf.shape for leaf in leaves), [torch.empty_like(leaf) for leaf in leaves])
        for place, leaf in zip(own, leaves, strict=True):
            place.copy_(leaf)
        result: MetaGradient = pytree.tree_unflatten(own, spec)
        return result

    return run


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["shared", "serial", "carry_per_task"])
@pytest.mark.parametrize("overwritten", [False, True])
def test_chunks_add_up(chunk: int | None, reduction: Any, kind: str, overwritten: bool) -> None:
    params = {"weight": torch.randn(2, 3), "bias": torch.randn(3)}
    carry = {"memory": torch.randn(TASKS, 2) if kind == "carry_per_task" else torch.randn(2), "none": {}}
    run = overwriting(gradient) if overwritten else gradient
    settings = {} if kind == "shared" else {kind: True}
    found = [
        meta_gradient(run, params, EPISODE, carry, torch.tensor(0.5), chunk=chunk, reduction=reduction, **settings)
        for _ in range(2)  # what the first has returned outlives the second
    ]
    numbers = torch.arange(TASKS) + 1.0
    factor = numbers.mean() if reduction == "mean" else numbers.sum()
    memory = {
        "shared": carry["memory"] + numbers.mean(),
        "serial": carry["memory"] + numbers.sum(),
        "carry_per_task": carry["memory"] + numbers[:, None],
    }[kind]
    for result in found:
        torch.testing.assert_close(result.losses, numbers + 0.5)
        torch.testing.assert_close(result.grads, {name: factor * value for name, value in params.items()})
        torch.testing.assert_close(result.carry["memory"], memory)
        assert list(result.grads) == list(params) and result.carry["none"] == {}
