"""Operations on many tensors at once, each one kernel on a GPU, where launching one for each tensor would cost more."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy every tensor of ``sources`` into that of ``targets`` at the same place."""
    # One kernel copies tensors of one type, as they lie in memory.
    kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        if target.stride() != source.stride():
            target.copy_(source)
            continue
        into, out_of = kinds.setdefault(target.dtype, ([], []))
        into.append(target)
        out_of.append(source)
    for into, out_of in kinds.values():
        torch._foreach_copy_(into, out_of)


def magnitudes(tensors: Iterable[Tensor]) -> Tensor:
    """Sums of absolute entries, (tensors,), each finite where all entries of a tensor are, unless it overflows."""
    wide = [tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor for tensor in tensors]
    return torch.stack(torch._foreach_norm(wide, 1))
