"""Small runs by the command line, for the tests of several folders."""

import inspect
from pathlib import Path

import pytest

from lightning_meta import algorithms
from lightning_meta.cli import main

SMALL_DATA = ["--data=GlyphEpisodes", "--data.train_classes=20", "--data.validation_classes=6", "--data.test_classes=6"]
SMALL_DATA += ["--data.ways=3", "--data.shots=2", "--data.meta_batch_size=2", "--data.validation_tasks=3"]
SMALL_DATA += ["--data.test_tasks=5"]
SMALL_MODEL = ["--model.backbone=Conv4", "--model.backbone.filters=4"]
SHORT_RUN = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]

SHORT_TRACE = {"IMAML": ["--model.inner.steps=2"], "MAMLPlusPlus": ["--model.inner.steps=2"]}
SHORT_TRACE |= {"LearnedOptimizer": ["--model.inner.steps=2", "--model.optimization_steps=4"]}


def small(tmp_path: Path, algorithm: str = "MAML", steps: int = 2) -> list[str]:
    run = [f"--trainer.default_root_dir={tmp_path}", f"--trainer.max_steps={steps}", "--trainer.val_check_interval=2"]
    inner = ["--model.inner.evaluation_steps=2", *SHORT_TRACE.get(algorithm, [])] if adapts(algorithm) else []
    return [f"--model={algorithm}", *SMALL_MODEL, *inner, *SMALL_DATA, *SHORT_RUN, *run]


def adapts(algorithm: str) -> bool:
    """Whether there is an inner loop."""
    return "inner" in inspect.signature(getattr(algorithms, algorithm)).parameters


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one error that a command ends in."""
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "usage:" not in printed
    error = printed[printed.index("lightning-meta: error: ") :]
    assert len(error.splitlines()) <= 3
    return error
