"""What a wheel carries, and what ``import lightning_meta`` offers and costs."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import yaml

import lightning_meta
from lightning_meta import algorithms, backbones, data

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, since setuptools leaves its own files beside them."""
    sources = tmp_path_factory.mktemp("sources")
    for folder in ("lightning_meta", "configs"):
        shutil.copytree(ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, sources)
    built = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=sources, check=True, capture_output=True, timeout=120)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_a_wheel_holds_every_module_and_every_configuration(names: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.joinpath("lightning_meta").rglob("*.py")}
    configs = {f"lightning_meta/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert modules | configs <= names


def test_a_wheel_holds_the_data_that_the_package_reads(names: set[str]) -> None:
    package = ROOT / "lightning_meta"
    splits, tables = package.joinpath("data", "splits").iterdir(), package.joinpath("report").glob("*.yaml")
    page = [path for path in package.joinpath("demo", "page").rglob("*") if path.is_file()]
    checkpoints = list(package.joinpath("inference", "pretrained").iterdir())
    kernels = list(package.joinpath("mapping").glob("*.cpp"))
    read = [package / "py.typed", *splits, *tables, *page, *checkpoints, *kernels]
    assert len(page) > 2 and checkpoints and kernels
    assert {path.relative_to(ROOT).as_posix() for path in read} <= names


def test_a_wheel_puts_nothing_beside_the_package(names: set[str], wheel: Path) -> None:
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"lightning_meta", information}


def test_a_wheel_installs_without_learn2learn(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if line.startswith("learn2learn")]
    assert [line.rpartition(" and ")[2] for line in required] == ['extra == "learn2learn"']
    assert metadata["Version"] == lightning_meta.__version__


def test_an_installed_wheel_finds_its_configurations(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from lightning_meta.cli.configurations import shipped_configurations as shipped; "
        "print(shipped()['omniglot/finn_5w1s_maml'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert Path(found.stdout.strip()) == tmp_path / "site/lightning_meta/configs/omniglot/finn_5w1s_maml.yaml"


def test_the_names_people_use_are_at_the_top() -> None:
    assert set(algorithms.__all__) <= set(lightning_meta.__all__)
    assert {name for name in data.__all__ if name.endswith("Episodes")} <= set(lightning_meta.__all__)
    networks = {name for name in backbones.__all__ if name[0].isupper() and not name.endswith("Norm")}
    assert {*networks, "MetaLearner", "InnerLoop", "Episode", "EpisodeDataModule"} <= set(lightning_meta.__all__)
    assert {"SGD", "Adam"}.isdisjoint(lightning_meta.__all__)  # those of torch.optim have the same names
    assert set(lightning_meta.__all__) <= set(dir(lightning_meta))


def test_a_name_at_the_top_is_the_class_in_its_room() -> None:
    for name in algorithms.__all__:
        assert getattr(lightning_meta, name) is getattr(algorithms, name)
    for name in lightning_meta.__all__:
        assert getattr(lightning_meta, name) is not None
    with pytest.raises(AttributeError, match="'lightning_meta' has no attribute 'MAMML'"):
        _ = lightning_meta.MAMML


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse(Path(lightning_meta.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == lightning_meta._MODULES


def test_importing_the_package_does_not_load_torch() -> None:
    code = (
        "import sys, lightning_meta; dir(lightning_meta); assert 'torch' not in sys.modules; "
        "from lightning_meta import MAML; assert 'torch' in sys.modules and MAML.__name__ == 'MAML'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_citation_names_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == lightning_meta.__version__
