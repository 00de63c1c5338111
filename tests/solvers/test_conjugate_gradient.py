"""Conjugate gradient against a direct solver."""

import pytest
import torch
from torch import Tensor

from lightning_meta.mapping import Compiled
from lightning_meta.solvers import conjugate_gradient

pytestmark = pytest.mark.usefixtures("float64")


def positive_definite(size: int) -> Tensor:
    root = torch.randn(size, size)
    return root @ root.T + torch.eye(size)


def test_equals_a_direct_solver_after_as_many_steps_as_unknowns() -> None:
    torch.manual_seed(0)
    matrix, right = positive_definite(6), torch.randn(6)
    expected = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(conjugate_gradient(matrix.mv, right, 6), expected, rtol=1e-9, atol=1e-12)
    distances = [(conjugate_gradient(matrix.mv, right, steps) - expected).norm() for steps in range(7)]
    assert distances == sorted(distances, reverse=True)
    assert conjugate_gradient(matrix.mv, right, 0).count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_after_the_solution_do_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    matrix = positive_definite(4).to(dtype)
    for right in (torch.randn(4, dtype=dtype), torch.zeros(4, dtype=dtype), 1e-12 * torch.randn(4, dtype=dtype)):
        found = conjugate_gradient(matrix.mv, right, 100)
        assert found.isfinite().all()
        expected = torch.linalg.solve(matrix.double(), right.double()).to(dtype)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(right.norm()) * 1e-4)


def test_one_step_solves_a_multiple_of_the_identity() -> None:
    right = torch.randn(5)
    torch.testing.assert_close(conjugate_gradient(lambda vector: 4 * vector, right, 1), right / 4)


def test_vectorises_and_compiles() -> None:
    torch.manual_seed(2)
    matrices, rights = torch.stack([positive_definite(4) for _ in range(3)]), torch.randn(3, 4)

    def solve(matrices: Tensor, rights: Tensor) -> Tensor:
        return torch.func.vmap(lambda matrix, right: conjugate_gradient(matrix.mv, right, 4))(matrices, rights)

    expected = torch.linalg.solve(matrices, rights)
    torch.testing.assert_close(solve(matrices, rights), expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(Compiled(solve)(matrices, rights), expected, rtol=1e-8, atol=1e-10)
