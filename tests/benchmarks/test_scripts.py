"""What the scripts of benchmarks/ take from the package is there, and a run is packed as a checkpoint that ships."""

import ast
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lightning_meta.cli import main
from lightning_meta.inference import load_learner
from lightning_meta.learner_file import describe_checkpoint
from tests.cli.helpers import small

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def taken(script: Path) -> Iterator[tuple[str, str]]:
    """The module and the name of everything that a script takes from the package."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "lightning_meta":
            yield from ((node.module, alias.name) for alias in node.names)


def test_every_import_is_found() -> None:
    imports = [(script.name, *one) for script in BENCHMARKS.rglob("*.py") for one in taken(script)]
    assert len(imports) > 100
    for script, module, name in imports:
        found = hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}")
        assert found, f"{script}: {module} has no {name}"


@pytest.fixture
def pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "pretrained"))
    script = importlib.import_module("pack")
    monkeypatch.setattr(script, "PRETRAINED", tmp_path / "pretrained")
    return script


def test_a_run_becomes_a_checkpoint_that_ships(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the figures of its test on most tasks, and the command that trained it."""
    assert main(["fit", *small(tmp_path, steps=2), "--data.test_tasks=3"]) == 0
    (checkpoint,) = tmp_path.rglob("best-*.ckpt")
    run = checkpoint.parents[1]
    assert main(["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={checkpoint}", "--data.test_tasks=7"]) == 0
    arguments = ["pack.py", str(run), str(checkpoint), "small", "--title=A small one"]
    monkeypatch.setattr("sys.argv", arguments)
    pack.main()
    path = tmp_path / "pretrained" / "small.safetensors"
    about = describe_checkpoint(path)
    assert (about["title"], about["results"]["tasks"]) == ("A small one", 7)
    assert about["command"].startswith("lightning-meta fit")
    assert load_learner(path).meta_steps == 2
    untested = shutil.copy(checkpoint, tmp_path / "untested.ckpt")
    monkeypatch.setattr("sys.argv", [*arguments[:2], str(untested), *arguments[3:]])
    with pytest.raises(SystemExit, match=r"holds no test of untested\.ckpt: run lightning-meta test first"):
        pack.main()
