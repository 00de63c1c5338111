"""Processes that train nothing."""

import sys
from pathlib import Path

import pytest

from lightning_meta.cli.sweep import workers


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of all fake runs, whose folders are below ``tmp_path/e``."""
    monkeypatch.setattr(workers, "CHILD", [sys.executable, str(Path(__file__).with_name("fake_child.py"))])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return ["fit", f"--root={tmp_path}", "--experiment=e"]
