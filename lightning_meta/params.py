"""Algebra on parameters: small pure functions on dictionaries from name to tensor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_meta.errors import MetaLearningError

Params = dict[str, Tensor]


def map_params(function: Callable[..., Tensor], *params: Params) -> Params:
    """Apply ``function`` to the tensors of the same name.

    >>> map_params(torch.add, {"w": torch.ones(2)}, {"w": torch.ones(2)})
    {'w': tensor([2., 2.])}
    """
    first, *others = params
    return {name: function(tensor, *(other[name] for other in others)) for name, tensor in first.items()}


def detach(params: Params) -> Params:
    """The same values as constants."""
    return map_params(Tensor.detach, params)


def straight_through(value: Params, params: Params) -> Params:
    """``value``, with the derivative of the identity with respect to ``params``."""
    return map_params(lambda target, source: target.detach() + (source - source.detach()), value, params)


def half_squared_distance(params: Params, target: Params) -> Tensor:
    """1/2 ||params - target||^2 over all entries; its gradient with respect to ``params`` is their difference."""
    differences = map_params(torch.sub, params, target)
    return 0.5 * torch.stack([difference.square().sum() for difference in differences.values()]).sum()


def flatten(params: Params) -> Tensor:
    """All entries as one vector, in the order of the names in ``params``."""
    return torch.cat([tensor.flatten() for tensor in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of `flatten`: the entries of ``vector`` in the shapes of ``like``.

    >>> unflatten(torch.arange(3.0), {"w": torch.zeros(2, 1), "b": torch.zeros(1)})["w"]
    tensor([[0.],
            [1.]])
    """
    pieces = vector.split([tensor.numel() for tensor in like.values()])
    return {name: piece.view_as(tensor) for (name, tensor), piece in zip(like.items(), pieces, strict=True)}


def named(prefix: str, params: Params) -> Params:
    """The entries whose names begin with ``prefix.``, without it.

    >>> named("head", {"head.bias": torch.zeros(1), "body.bias": torch.ones(1)})
    {'bias': tensor([0.])}
    """
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in params.items() if name.startswith(start)}


def trainable(module: nn.Module) -> Params:
    """The parameters of ``module`` that learn, as constants that share its memory."""
    return {name: tensor.detach() for name, tensor in module.named_parameters() if tensor.requires_grad}


def call(module: nn.Module, params: Params, *inputs: Any) -> Any:
    """The output of ``module`` with ``params`` in the place of its own tensors of these names, which are left alone.

    A tensor of several names, be it a layer under two of them or weights that two layers share, is replaced under all.
    ``torch.func.functional_call`` leaves the given tensors in a module that has a layer under two names.

    Args:
        module: any module.
        params: tensors by the first of their names, as ``named_parameters`` and ``named_buffers`` list them.
        *inputs: positional arguments of the module.

    Raises:
        MetaLearningError: the module has no tensor of a name.
    """
    places: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():  # every layer once
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    first = {names[0]: names for names in places.values()}
    if unknown := sorted(params.keys() - first.keys()):
        raise MetaLearningError(
            f"{type(module).__name__} has no parameter or buffer {unknown[0]}, which a method gives it: take the names "
            "of named_parameters and named_buffers, and register what is missing"
        )
    replaced = {place: tensor for name, tensor in params.items() for place in first[name]}
    return torch.func.functional_call(module, replaced, inputs, tie_weights=False)
