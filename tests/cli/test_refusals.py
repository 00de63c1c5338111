"""Backbones and checkpoints that a command refuses, and runs that diverge."""

import re
from pathlib import Path

import pytest
from torch import nn

from lightning_meta.cli import main
from tests.cli.helpers import refused, small


class NoOutputs(nn.Sequential):
    """A backbone that calls that number otherwise."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, classes))


class Normed(nn.Sequential):
    """A backbone with one of PyTorch's batch norms."""

    def __init__(self, outputs: int) -> None:
        super().__init__(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 26 * 26, outputs))


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("NoOutputs", "has 7 outputs, but the tasks need 3"),
        ("Normed", "1 (BatchNorm2d)"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(
    backbone: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument for argument in small(tmp_path) if "backbone" not in argument]
    assert said in refused(["fit", *arguments, f"--model.backbone={__name__}.{backbone}"], capsys)


def test_norms_are_replaced_where_asked_for(tmp_path: Path) -> None:
    arguments = [argument for argument in small(tmp_path) if "backbone" not in argument]
    assert main(["fit", *arguments, f"--model.backbone={__name__}.Normed", "--model.replace_norms=true"]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the run goes on in the folder of the first
def test_divergence_stops_before_the_checkpoint_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eager = "--model.compile=false"
    assert main(["fit", *small(tmp_path, steps=2), eager]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    before = last.read_bytes()
    arguments = [*small(tmp_path, steps=6), eager, "--model.inner.optimizer.lr=1e30", f"--ckpt_path={last}"]
    arguments += [f"--checkpoint.dirpath={last.parent}"]
    printed = refused(["fit", *arguments], capsys)
    assert "meta-step 2: the outer loss of task(s) [4, 5] is not finite" in printed
    assert last.read_bytes() == before


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*small(tmp_path), "--model.compile=false", "--data.test_tasks=0"]
    assert main(["fit", *arguments]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    before = last.read_bytes()
    changes = {
        "--model.backbone.filters=8": ("a different architecture", "has shape .4, 1, 3, 3., expected .8, 1, 3, 3."),
        "--model.backbone.head=flatten": ("a different architecture", "has shape .3, 4., expected .3, "),
        "--data.ways=2": ("data.ways is 2, but the checkpoint was trained at 3 ways", "one output for each way"),
    }
    for command in ("fit", "test"):
        for change, said in changes.items():
            printed = refused([command, *arguments, "--data.test_tasks=2", change, f"--ckpt_path={last}"], capsys)
            assert all(re.search(part, printed) for part in said), (command, change, printed)
    assert last.read_bytes() == before
    assert list(tmp_path.rglob("last.ckpt")) == [last]


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no such file"), (b"<html>", "cannot be read as a checkpoint")]
)
def test_a_checkpoint_that_is_none_is_refused(
    content: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert said in refused(["test", *small(tmp_path), f"--ckpt_path={path}"], capsys)


def test_validation_without_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no validation tasks" in refused(["validate", *small(tmp_path), "--data.validation_tasks=0"], capsys)
