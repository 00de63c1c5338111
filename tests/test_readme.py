"""The example in the README is run as it stands there."""

import math
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

README = Path(__file__).parents[1] / "README.md"
HEADING = "## Add your own algorithm"
SMALL = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SMALL += ["--model.compile=false", "--model.backbone.filters=4", "--model.inner.evaluation_steps=1"]
SMALL += ["--data.train_classes=10", "--data.validation_tasks=0", "--data.test_classes=10", "--data.test_tasks=2"]


def block(language: str) -> str:
    """The first block of code of this language below the heading."""
    below = README.read_text().partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", below, re.DOTALL)
    assert found, f"README.md has no block of {language} below {HEADING!r}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the example in a file, as the README says."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("taml.py").write_text(block("python"))
    return tmp_path


def test_the_example_learns(folder: Path) -> None:
    learner = runpy.run_path("taml.py", run_name="__main__")["learner"]
    accuracy, loss = learner.intervals["query_accuracy"], learner.intervals["query_loss"]
    assert learner.meta_steps == 60
    assert accuracy.tasks == 100
    assert accuracy.mean[-1] > 0.5  # one in five by chance
    assert loss.mean[0] == pytest.approx(math.log(5), abs=0.1)  # undecided before adaptation


def test_the_example_is_known_to_the_command_line_by_its_class_path(folder: Path) -> None:
    python, *arguments = shlex.split(block("bash"))
    assert python == "python"
    run = subprocess.run([sys.executable, *arguments, *SMALL], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "over 2 tasks" in run.stdout
    (config,) = folder.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["class_path"] == "taml.TAML"
