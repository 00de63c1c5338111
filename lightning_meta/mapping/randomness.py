"""Random numbers inside mapped functions: every task draws its own, and a seed says which."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Randomness = Literal["different", "same"]  # what tasks that are vmap_with_draws together draw

_OF_PLAIN_EMPTY = {"dtype", "device"}  # what ``torch.rand`` takes, too


def vmap_with_draws(
    function: Callable[..., Any],
    in_dims: Any = 0,
    *,
    chunk_size: int | None = None,
    randomness: Randomness = "different",
) -> Callable[..., Any]:
    """``torch.func.vmap`` with draws of their own for the rows, of whatever draws random numbers inside."""
    mapped = torch.func.vmap(function, in_dims, chunk_size=chunk_size, randomness=randomness)

    def run(*args: Any) -> Any:
        with MappableDraws(randomness):
            return mapped(*args)

    return run


class MappableDraws(TorchFunctionMode):
    """Within it, what ``torch.func.vmap`` refuses is drawn by operations of the same distribution that it maps.

    These are a randomised leaky ReLU, ``torch.bernoulli`` of probabilities, and, where rows draw their own, memory that
    is filled in place, as in ``torch.empty(size).bernoulli_(p)``, the way of torchvision's stochastic depth.
    """

    def __init__(self, randomness: Randomness = "different") -> None:
        super().__init__()
        self._own = randomness == "different"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (functional.rrelu, torch.rrelu):
            return _rrelu(*args, **kwargs)
        if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1 and not kwargs:
            return (torch.rand_like(args[0]) < args[0]).to(args[0].dtype)
        floats = kwargs.get("dtype") or torch.get_default_dtype()
        if func is torch.empty and self._own and kwargs.keys() <= _OF_PLAIN_EMPTY and floats.is_floating_point:
            return torch.rand(*args, **kwargs)  # any content will do, and each row gets memory of its own
        return func(*args, **kwargs)


def _rrelu(
    input: Tensor,  # noqa: A002  (PyTorch's name)
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    slope = lower + (upper - lower) * torch.rand_like(input) if training else (lower + upper) / 2
    return torch.where(input >= 0, input, slope * input)


@contextmanager
def seeded(device: torch.device, *names: Any) -> Iterator[None]:
    """Within it, PyTorch draws what these names say, and afterwards what it would have drawn without."""
    seed = int.from_bytes(hashlib.sha256(" ".join(map(str, names)).encode()).digest()[:7], "big")
    with kept_generators(device):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Put the generators of the CPU and of ``device`` back to where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
