"""What several tests share: small episodes in float64, and the place of the real data."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_meta.episode import Episode


@pytest.fixture(scope="session")
def omniglot_root() -> Path:
    """Where ``omniglot-py`` lies; skips without it."""
    root = os.environ.get("LIGHTNING_META_ROOT")
    if root is None:
        pytest.skip("the real data are not in the repository: LIGHTNING_META_ROOT must name the folder of omniglot-py")
    return Path(root)


@pytest.fixture(scope="session")
def cifarfs_root() -> Path:
    """Where ``cifarfs`` lies; skips without it."""
    root = Path(os.environ.get("LIGHTNING_META_ROOT", ""))
    if not (root / "cifarfs").is_dir():
        pytest.skip("the real data are not in the repository: LIGHTNING_META_ROOT must name the folder of cifarfs")
    return root


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """Where ``MNIST`` lies; skips without it."""
    root = Path(os.environ.get("LIGHTNING_META_ROOT", ""))
    if not (root / "MNIST").is_dir():
        pytest.skip("the real data are not in the repository: LIGHTNING_META_ROOT must name the folder of MNIST")
    return root


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision, for comparisons to 1e-9."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def image_episode(tasks: int = 3, ways: int = 3, shots: int = 2, queries: int = 2, steps: int = 1) -> Episode:
    """Random 8 x 8 images with labels, in the default precision, drawn from the global generator."""
    support, query = ways * shots, ways * queries
    return Episode(
        torch.randn(tasks, support, 1, 8, 8),
        torch.arange(ways).repeat_interleave(shots).expand(tasks, -1),
        torch.randn(tasks, query, 1, 8, 8),
        torch.arange(ways).repeat_interleave(queries).expand(tasks, -1),
        torch.arange(support).expand(tasks, steps, -1),
        torch.arange(tasks),
        torch.arange(ways).expand(tasks, -1),
    )
