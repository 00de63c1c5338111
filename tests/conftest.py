"""Fixtures of several folders: double precision, and the place of the real data."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


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


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """A terminal that has gone ends processes, although ``nohup``, under which the tests may run, has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
