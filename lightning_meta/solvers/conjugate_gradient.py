"""Conjugate gradient: Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(product: Callable[[Tensor], Tensor], right: Tensor, steps: int) -> Tensor:
    """Solve A x = ``right`` for a symmetric positive definite A that is known by its products with vectors.

    Always runs ``steps`` iterations, so that it can be vectorised and traced; those after the solution is found do
    nothing.

    Args:
        product: x -> A x.
        right: the right-hand side, a vector.
        steps: iterations, from x = 0.
    """
    tiny = torch.finfo(right.dtype).tiny
    solution, residual, direction = torch.zeros_like(right), right, right
    length = _inner(residual, residual)
    for _ in range(steps):
        image = product(direction)
        distance = length / (_inner(direction, image) + tiny)
        solution = solution + distance * direction
        residual = residual - distance * image
        previous, length = length, _inner(residual, residual)
        direction = residual + length / (previous + tiny) * direction
    return solution


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Their inner product; ``torch.dot`` would be rounded to half precision under autocast, once it is vectorised."""
    return (left * right).sum()
