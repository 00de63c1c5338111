"""The arithmetic floor of a meta-step: the operations of its products over the fastest product of this machine."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from instruments import time_of
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from lightning_meta.episode import Episode
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import chunk_gradient

SIZE, TURNS, SECONDS = 2048, 5, 0.2


def _convolution(x: Any, weight: Any, *settings: Any, out_shape: Any, **_: Any) -> int:
    transposed = settings[4]  # after the bias, stride, padding and dilation
    return 2 * math.prod(x if transposed else out_shape) * math.prod(weight[1:])


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any, out_shape: Any) -> int:
    return 2 * math.prod(grad) * math.prod(weight[1:]) * sum(rest[-1][:2])  # of each gradient that is asked for


# PyTorch's own count forgets the groups of a convolution, which its second derivative may have.
COUNTS = {torch.ops.aten.convolution: _convolution, torch.ops.aten.convolution_backward: _convolution_backward}


def operations(learner: MetaLearner, episode: Episode) -> int:
    """Multiplications and additions of the products and convolutions in the meta-gradient of the episode.

    The traced graph of two tasks is counted, without what nobody reads: for one task it would hold PyTorch's own second
    derivative of a convolution, which computes more than it keeps.
    """
    pair = Episode(*(rows[[0, -1]] for rows in episode))
    gradient = chunk_gradient(learner.outer_loss)
    names, values = zip(*learner.meta_parameters().items(), strict=True)
    carry, progress = learner.training_carry(pair), torch.zeros((), device=learner.device)

    def flat(*values: Tensor) -> list[Tensor]:
        return list(gradient(dict(zip(names, values, strict=True)), pair, carry, progress).grads.values())

    with torch.no_grad():
        graph = make_fx(flat)(*values)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        with FlopCounterMode(display=False, custom_mapping=COUNTS) as counter:
            graph(*values)
    return episode.tasks * counter.get_total_flops() // 2


def matrix_rates(device: torch.device) -> dict[str, float]:
    """Operations per second of a square product in float32, by the libraries that are installed."""
    left, right = (torch.randn(SIZE, SIZE, device=device) for _ in range(2))
    products: dict[str, Callable[[], object]] = {}
    if device.type == "cpu":
        library = "MKL" if torch.backends.mkl.is_available() else "its BLAS"
        products[f"PyTorch ({library})"] = lambda: left @ right
        if torch.backends.mkldnn.is_available():  # what Inductor calls for a linear layer
            linear = torch.ops.mkldnn._linear_pointwise
            products["PyTorch (oneDNN)"] = lambda: linear(left, right, None, "none", [], "")
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]  # type: ignore[call-overload]
        rows, columns = left.numpy(), right.numpy()
        products[f"NumPy ({blas})"] = lambda: rows @ columns
    else:
        products["PyTorch"] = lambda: left @ right
    if importlib.util.find_spec("jax"):
        products["JAX"] = _jax_product(left, right)
    for product in products.values():
        product()
    turns = [[time_of(product, SECONDS, device).wall for product in products.values()] for _ in range(TURNS)]
    return {name: 2 * SIZE**3 / min(times) for name, times in zip(products, zip(*turns, strict=True), strict=True)}


def _jax_product(left: Tensor, right: Tensor) -> Callable[[], object]:
    jax = importlib.import_module("jax")
    arrays = [jax.numpy.asarray(matrix.cpu().numpy()) for matrix in (left, right)]
    product = jax.jit(lambda a, b: jax.numpy.matmul(a, b, precision="highest"))
    return lambda: jax.block_until_ready(product(*arrays))
