"""What is random in a network while it is trained: found by one run on a small task of noise."""

import pickle
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping import kept_generators, line_of_change

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_REMEDY = "draw with torch.rand and its like, without a generator, which every task and step then does for itself"


def check_randomness(learner: "MetaLearner", run: Any, device: torch.device) -> bool:
    """Whether ``run``, the outer loss of one task, draws random numbers.

    Args:
        learner: what is about to be trained; it is left as it is, and so are PyTorch's generators.
        run: runs the outer loss.
        device: where.

    Raises:
        MetaLearningError: they come from Python's generator, NumPy's or a `torch.Generator`, which neither gives each
            task its own nor goes on exactly from a checkpoint; or the method needs the same loss whenever it asks.
    """
    python, numpy = random.getstate(), _of_numpy()
    try:
        with kept_generators(device), _Generators() as own:
            before = _state(device)
            run()
            draws = not torch.equal(before, _state(device))
    except (RuntimeError, NotImplementedError):
        return False  # the other checks say what is wrong
    for changed, foreign, state in (
        (_of_numpy() != numpy, "NumPy's random", _of_numpy),
        (random.getstate() != python, "Python's random", random.getstate),
        (own.used > 0, "a torch.Generator of its own", None),
    ):
        if changed:
            who, _ = _who_draws(learner, run, device, state)
            raise MetaLearningError(
                f"{who} draws from {foreign}, so that tasks would share numbers, or a graph keep the first ones: "
                f"{_REMEDY}"
            )
    if draws and learner.needs_fixed_loss:
        who, part = _who_draws(learner, run, device, lambda: _state(device).tolist())
        remedy = "set the probability of a dropout to 0, or leave that layer out" if part else "leave that out"
        raise MetaLearningError(
            f"{who} draws random numbers in training{part}, but {type(learner).__name__} {learner.needs_fixed_loss}: "
            f"{remedy}"
        )
    return draws


def _who_draws(
    learner: "MetaLearner", run: Any, device: torch.device, state: Callable[[], Any] | None
) -> tuple[str, str]:
    """By another run: the backbone or the method, with its author's line, and which part of the backbone it is.

    Args:
        learner: what is about to be trained.
        run: runs the outer loss.
        device: where.
        state: what a draw changes; None for that of generators that are handed over.
    """
    drawing: list[str] = []
    with kept_generators(device), _Generators() as own:
        state = state or (lambda: own.used)
        hooks = _watch(learner.backbone, state, drawing)
        try:
            line = line_of_change(run, state)
        finally:
            for hook in hooks:
                hook.remove()
    if not drawing:
        return f"{type(learner).__name__}{line}", ""
    kind = type(learner.backbone.get_submodule(drawing[0])).__name__
    return f"model.backbone {type(learner.backbone).__name__}{line}", f", at {drawing[0] or 'its root'} ({kind})"


class _Generators(TorchFunctionMode):
    """Counts how often a generator is handed over."""

    used = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.used += any(isinstance(value, torch.Generator) for value in (*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _of_numpy() -> bytes:
    return pickle.dumps(np.random.get_state(legacy=False))


def _watch(network: nn.Module, state: Callable[[], Any], drawing: list[str]) -> list[Any]:
    """Hooks that add the names of the parts that change ``state``, the innermost first."""
    entered: list[Any] = []
    hooks: list[Any] = []
    for name, part in network.named_modules():

        def leave(*_: Any, name: str = name) -> None:
            if entered.pop() != state():
                drawing.append(name)

        hooks.append(part.register_forward_pre_hook(lambda *_: entered.append(state())))
        hooks.append(part.register_forward_hook(leave))
    return hooks
