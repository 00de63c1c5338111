"""Losses as learners call them, with the reduction: functions of that argument, and the loss modules of torch.nn."""

import copy
import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
from jsonargparse.typing import register_type
from torch import Tensor, nn

from lightning_meta.errors import MetaLearningError

Loss = Callable[..., Tensor]


def _tensor(value: Any) -> Tensor:
    """A tensor that configurations and checkpoints write as a list, such as the weights of classes."""
    return torch.tensor(value, dtype=torch.get_default_dtype())


register_type(Tensor, Tensor.tolist, _tensor, deserializer_exceptions=(ValueError, TypeError, RuntimeError))


class ModuleLoss(nn.Module):
    """A loss module that is told its reduction by every call, as the functions of ``torch.nn.functional`` are.

    Its tensors, such as the weights of classes, follow the learner to its device and take the precision of the outputs.
    They are settings, and so they belong to no ``state_dict``.

    Args:
        module: a loss with the attribute ``reduction``; it is left as it is.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, in which its tensors are not the learner's
        for name, buffer in module.named_buffers():
            self.register_buffer(name.replace(".", "/"), buffer, persistent=False)

    @property
    def __name__(self) -> str:
        return type(self._module[0]).__name__

    def forward(self, outputs: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
        """The loss of ``outputs`` for ``targets`` by this reduction."""
        module: Any = copy.copy(self._module[0])
        module.reduction = reduction
        tensors = {name.replace("/", "."): buffer for name, buffer in self.named_buffers()}
        tensors = {name: value.to(outputs) if value.is_floating_point() else value for name, value in tensors.items()}
        if reduction == "mean" and not targets.is_floating_point() and _smooths_weighted_classes(module):
            module.reduction = "sum"  # torch's own mean of these selects rows, which torch.func.vmap cannot
            kept: Tensor = targets != module.ignore_index
            weights = tensors["weight"][targets.where(kept, 0)].where(kept, 0)
            return torch.func.functional_call(module, tensors, (outputs, targets)) / weights.sum()
        return torch.func.functional_call(module, tensors, (outputs, targets))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ModuleLoss":
        """Take over the device alone: a learner in half precision would round the weights."""
        for name, buffer in self._buffers.items():
            assert buffer is not None
            self._buffers[name] = buffer.to(fn(buffer).device)
        return self


def as_loss(loss: Loss) -> Loss:
    """A function of (outputs, targets, reduction=...), made of a loss module where one is given.

    Args:
        loss: a function of these arguments, which is returned as it is, or a module with the attribute ``reduction``,
            such as ``torch.nn.CrossEntropyLoss(label_smoothing=0.1)``.

    Raises:
        MetaLearningError: the loss takes no reduction, has a reduction of its own, or has parameters to learn.
    """
    name = loss_name(loss)
    if _takes_reduction(loss):
        return loss
    if inspect.isclass(loss) or not isinstance(loss, nn.Module) or not hasattr(loss, "reduction"):
        raise MetaLearningError(
            f"model.loss is {name}, which takes no reduction, expected a function of (outputs, targets, "
            "reduction='mean' | 'sum' | 'none'), or a module with the attribute reduction such as "
            "torch.nn.CrossEntropyLoss()"
        )
    if loss.reduction != "mean":
        raise MetaLearningError(
            f"model.loss is {name} with reduction {loss.reduction}, expected mean, its default: the learner chooses "
            "the reduction itself, by model.inner.reduction in the inner loop"
        )
    if parameters := [name for name, _ in loss.named_parameters()]:
        raise MetaLearningError(
            f"model.loss is {name}, whose parameter {parameters[0]} no method would train: make it a buffer"
        )
    return ModuleLoss(loss)


def _smooths_weighted_classes(module: nn.Module) -> bool:
    return isinstance(module, nn.CrossEntropyLoss) and module.weight is not None and module.label_smoothing > 0


def loss_name(loss: Loss) -> str:
    """What a message calls a loss."""
    if isinstance(loss, functools.partial):
        return loss_name(loss.func)
    return getattr(loss, "__name__", type(loss).__name__)


def raised_in_loss(loss: Loss, error: BaseException) -> bool:
    """Whether the loss was running when an error was raised."""
    code = _code(loss)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return False


def _code(loss: Any) -> CodeType | None:
    if isinstance(loss, functools.partial):
        return _code(loss.func)
    function = loss if inspect.isroutine(loss) else type(loss).forward if isinstance(loss, nn.Module) else loss.__call__
    return getattr(function, "__code__", None)


def _takes_reduction(loss: Loss) -> bool:
    called = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        return callable(loss)
    if inspect.isclass(loss):  # which has not been made
        return False
    return any(parameter.name == "reduction" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
