"""Shipped configurations are found from a source checkout and from an installed wheel."""

import shutil
from pathlib import Path

import pytest

from lightning_meta.cli import configurations
from lightning_meta.cli.configurations import shipped_configurations

FOLDER = Path(__file__).parents[2] / "configs"


def test_every_file_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = shipped_configurations()
    assert shipped["omniglot/finn_5w1s_maml"].read_text() == (FOLDER / "omniglot" / "finn_5w1s_maml.yaml").read_text()
    assert shipped["quickstart"].is_file()
    assert len(shipped) == len(list(FOLDER.rglob("*.yaml")))
    assert list(shipped) == sorted(shipped)


def test_a_wheel_holds_them_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "lightning_meta"
    shutil.copytree(FOLDER / "omniglot", package / "configs" / "omniglot")
    monkeypatch.setattr(configurations, "PACKAGE", package)
    shipped = shipped_configurations()
    assert shipped["omniglot/finn_5w1s_maml"] == package / "configs" / "omniglot" / "finn_5w1s_maml.yaml"
    assert all(name.startswith("omniglot/") for name in shipped)
