"""What is random in a network while it is trained: found by one run on a small task of noise."""

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping import kept_generators

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
        MetaLearningError: they come from Python's generator, NumPy's or an own one, which neither gives each task its
            own nor goes on exactly from a checkpoint; or the method needs the same loss whenever it asks.
    """
    name = f"model.backbone {type(learner.backbone).__name__}"
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    drawing: list[str] = []
    hooks = _watch(learner.backbone, device, drawing)
    try:
        with kept_generators(device), _Generators() as own:
            before = _state(device)
            run()
            draws = not torch.equal(before, _state(device))
    except (RuntimeError, NotImplementedError):
        return False  # the other checks say what is wrong
    finally:
        for hook in hooks:
            hook.remove()
    foreign = "Python's random" if random.getstate() != python else "a torch.Generator of its own" if own.used else ""
    if str(np.random.get_state(legacy=False)) != str(numpy):
        foreign = "NumPy's random"
    if foreign:
        raise MetaLearningError(
            f"{name} draws from {foreign}, so that tasks would share numbers, or a graph keep the first ones: {_REMEDY}"
        )
    if draws and learner.needs_fixed_loss:
        part = drawing[0] if drawing else ""
        kind = type(learner.backbone.get_submodule(part)).__name__
        raise MetaLearningError(
            f"{name} draws random numbers in training, at {part or 'its root'} ({kind}), but {type(learner).__name__} "
            f"{learner.needs_fixed_loss}: set the probability of a dropout to 0, or leave that layer out"
        )
    return draws


class _Generators(TorchFunctionMode):
    """Notices whether a generator is handed over."""

    used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.used |= any(isinstance(value, torch.Generator) for value in (*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _watch(network: nn.Module, device: torch.device, drawing: list[str]) -> list[Any]:
    """Hooks that add the names of the parts that draw, the innermost first."""
    entered: list[Tensor] = []
    hooks: list[Any] = []
    for name, part in network.named_modules():

        def leave(*_: Any, name: str = name) -> None:
            if not torch.equal(entered.pop(), _state(device)):
                drawing.append(name)

        hooks.append(part.register_forward_pre_hook(lambda *_: entered.append(_state(device))))
        hooks.append(part.register_forward_hook(leave))
    return hooks
