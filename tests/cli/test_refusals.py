"""Backbones and checkpoints that a command refuses, and runs that diverge."""

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
    assert main(["fit", *small(tmp_path, steps=2)]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    before = last.read_bytes()
    arguments = [*small(tmp_path, steps=6), "--model.inner.optimizer.lr=1e30", f"--ckpt_path={last}"]
    arguments += [f"--checkpoint.dirpath={last.parent}"]
    printed = refused(["fit", *arguments], capsys)
    assert "meta-step 2: the outer loss of task(s) [4, 5] is not finite" in printed
    assert last.read_bytes() == before


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *small(tmp_path)]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    for change in ("--model.backbone.filters=8", "--model.backbone.head=flatten"):
        printed = refused(["test", *small(tmp_path), change, f"--ckpt_path={last}"], capsys)
        assert "a different architecture" in printed
        assert "expected" in printed


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
