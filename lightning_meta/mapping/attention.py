"""Attention whose derivatives of every order are right, also where tasks are vectorised."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def exact_attention() -> Iterator[None]:
    """Within it, attention is written out as matrix products and a softmax, which differentiate twice.

    PyTorch's fused attention has one derivative and no second, and the fast path of ``nn.MultiheadAttention`` and
    ``nn.TransformerEncoderLayer`` has none. Only the forward pass need run within.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
