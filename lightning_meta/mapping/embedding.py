"""Embeddings whose derivatives of every order are right, also where tasks are vectorised.

Under ``torch.func.vmap`` the second derivative of PyTorch's own forgets ``padding_idx``, with no error (torch 2.15),
and bags of embeddings have none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}


@contextmanager
def exact_embedding(module: nn.Module) -> Iterator[None]:
    """Within it, the embeddings of ``module`` are those of this file.

    Args:
        module: any; without ``nn.Embedding`` and ``nn.EmbeddingBag`` nothing is changed.
    """
    if any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules()):
        with _RoutedEmbedding():
            yield
    else:
        yield


class _RoutedEmbedding(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.embedding and kwargs.get("padding_idx") is not None:
            return _padded(args[0], args[1], kwargs["padding_idx"])
        if func is functional.embedding_bag and args[0].dim() == 2 and not _weighted(kwargs):
            return _REDUCTIONS[kwargs["mode"]](functional.embedding(args[0], args[1]), 1)
        return func(*args, **kwargs)


def _padded(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The rows of ``weight`` at ``x``, (..., features); that of the padding is a constant."""
    rows = functional.embedding(x, weight)
    return torch.where((x == padding % len(weight))[..., None], rows.detach(), rows)


def _weighted(kwargs: dict[str, Any]) -> bool:
    return any(kwargs.get(name) is not None for name in ("per_sample_weights", "padding_idx"))
