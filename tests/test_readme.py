"""The examples in the README are run as they stand there."""

import math
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pytorch_lightning import Trainer

from lightning_meta.algorithms import TRPOMAML
from lightning_meta.backbones import GaussianPolicy
from lightning_meta.inner import SGD, InnerLoop

README = Path(__file__).parents[1] / "README.md"
ALGORITHM = "\n## Add your own algorithm\n"
ENVIRONMENT = "## Your own environment"
SMALL = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SMALL += ["--model.compile=false", "--model.backbone.filters=4", "--model.inner.evaluation_steps=1"]
SMALL += ["--data.train_classes=10", "--data.validation_tasks=0", "--data.test_classes=10", "--data.test_tasks=2"]


def block(language: str, start: str) -> str:
    """The first block of code of this language in the part of the README that starts with these words."""
    below = README.read_text().partition(start)[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", below, re.DOTALL)
    assert found, f"README.md has no block of {language} below {start!r}"
    return found[1]


def run_command(start: str, changes: list[str]) -> str:
    """Run the command in this part of the README, with changes, and return what it prints."""
    python, *arguments = shlex.split(block("bash", start).replace("\\\n", " "))
    assert python == "python"
    run = subprocess.run([sys.executable, *arguments, *changes], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the examples in files, as the README says."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("taml.py").write_text(block("python", ALGORITHM))
    tmp_path.joinpath("line.py").write_text(block("python", ENVIRONMENT))
    return tmp_path


@pytest.mark.slow
def test_the_example_learns(folder: Path) -> None:
    learner = runpy.run_path("taml.py", run_name="__main__")["learner"]
    accuracy, loss = learner.scores.intervals["query_accuracy"], learner.scores.intervals["query_loss"]
    assert learner.meta_steps == 60
    assert accuracy.tasks == 100
    assert accuracy.mean[-1] > 0.5  # one in five by chance
    assert loss.mean[0] == pytest.approx(math.log(5), abs=0.1)  # undecided before adaptation


def test_the_example_is_known_to_the_command_line_by_its_class_path(folder: Path) -> None:
    assert "over 2 tasks" in run_command(ALGORITHM, SMALL)
    (config,) = folder.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["class_path"] == "taml.TAML"


@pytest.mark.slow
def test_the_environment_is_learned(folder: Path) -> None:
    line = SimpleNamespace(**runpy.run_path("line.py"))
    policy, inner = GaussianPolicy(outputs=1, inputs=1, hidden=(16,)), InnerLoop(SGD(0.1), evaluation_steps=1)
    learner = TRPOMAML(policy, inner, environment=line.Line(), task_chunk=8)
    data = line.LineEpisodes(trajectories=10, horizon=10, meta_batch_size=8, test_tasks=40)
    trainer = Trainer(
        accelerator="cpu", max_steps=12, logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(learner, data)
    trainer.test(learner, data, verbose=False)
    before, after = learner.scores.intervals["query_loss"].mean
    assert before > 1.5  # ten steps of 0.25, the mean distance of a goal, or farther
    assert after < 0.8 * before


def test_the_environment_is_known_to_the_command_line_by_its_class_path(folder: Path) -> None:
    small = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    small += ["--data.trajectories=3", "--data.horizon=5", "--data.meta_batch_size=2", "--data.test_tasks=2"]
    assert "over 2 tasks" in run_command(ENVIRONMENT, small)
    (config,) = folder.rglob("config.yaml")
    environment = yaml.safe_load(config.read_text())["model"]["init_args"]["environment"]
    assert environment["class_path"] == "line.Line"
