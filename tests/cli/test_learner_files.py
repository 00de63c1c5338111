"""Learner files on the command line: those that come with the package by their names, and a person's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta import results_file
from lightning_meta.algorithms import MAML
from lightning_meta.cli import main
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import load_learner, pretrained
from lightning_meta.learner_file import describe_checkpoint
from tests.cli.helpers import refused

NAME, CONFIG = "sinusoid_maml", "sinusoid/finn_10shot_maml"


def command(folder: Path, checkpoint: object, *more: str) -> list[str]:
    return [f"--config={CONFIG}", f"--ckpt_path={checkpoint}", f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--data.test_tasks=40",
            "--data.validation_tasks=40", *more]  # fmt: skip


def losses(split: Any, tasks: int = 40) -> torch.Tensor:
    """Of the learner by itself, over the scored steps."""
    learner, data = load_learner(NAME), SinusoidEpisodes(shots=10, queries=50)
    data.connect(learner.training_batches(), learner.evaluation_batches())
    episode = data.draw(split, torch.arange(tasks))
    outputs = learner.all_predictions(episode).query
    return (outputs - episode.query_y[:, None]).square().double().mean((0, 2, 3))


@pytest.mark.parametrize(("subcommand", "split"), [("test", "test"), ("validate", "validation")])
@pytest.mark.parametrize("own", [False, True])
def test_a_learner_without_its_run_is_evaluated_with_what_it_says_of_its_training(
    subcommand: str, split: str, own: bool, tmp_path: Path
) -> None:
    checkpoint: object = NAME
    if own:
        checkpoint = shutil.copy(pretrained()[NAME], tmp_path / "mine.safetensors")
        (tmp_path / "last.ckpt").write_text("of another run")
    shipped = sorted(pretrained()[NAME].parent.iterdir())
    assert main([subcommand, *command(tmp_path / "logs", checkpoint)]) == 0
    assert sorted(pretrained()[NAME].parent.iterdir()) == shipped  # the package is no place for results
    (found,) = tmp_path.rglob(results_file.NAME)
    assert found.parent == tmp_path / "logs" / CONFIG / "version_0"
    (entry,) = results_file.read(found)
    about = describe_checkpoint(pretrained()[NAME])
    assert (entry.split, entry.meta_steps, entry.minutes) == (split, about["meta_steps"], about["minutes"])
    assert entry.checkpoint == f"{'mine' if own else NAME}.safetensors"
    expected = losses(split)
    metric = entry.metrics["query_loss"]
    torch.testing.assert_close(torch.tensor(metric.mean).double(), expected[metric.steps], rtol=1e-4, atol=1e-6)
    assert metric.mean[-1] < metric.mean[0] / 5


def test_predictions_of_a_shipped_learner(tmp_path: Path) -> None:
    assert main(["predict", *command(tmp_path, NAME)]) == 0
    (found,) = tmp_path.rglob("predictions_0.pt")
    batches = torch.load(found, weights_only=True)
    outputs, targets = (torch.cat([batch[key] for batch in batches]) for key in ("outputs", "targets"))
    loss = (outputs - targets).square().double().mean()
    torch.testing.assert_close(loss, losses("test")[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("subcommand", "checkpoint", "said"),
    [
        ("fit", NAME, "a fit cannot go on from this checkpoint, which does not hold the state of the outer optimizer"),
        ("test", "sinusoid_mamml", f"neither a file nor the name of a checkpoint: did you mean {NAME}"),
        ("test", "sinusoid_reptile", "the checkpoint was trained by Reptile, but model is MAML"),
        ("test", "omniglot_maml_5w1s", "trained on inputs of shape|different architecture"),
        ("test", "nothing.safetensors", "there is no such file"),
    ],
)
def test_a_learner_that_does_not_serve_is_refused_and_no_file_is_left(
    subcommand: str, checkpoint: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = refused([subcommand, *command(tmp_path, checkpoint)], capsys)
    assert any(part in printed for part in said.split("|"))
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_a_file_that_says_what_is_not_so_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = pretrained()[NAME].read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for key, value in {"meta_steps": "many", "method": 3, "hyper_parameters": [1]}.items():
        about = json.loads(header["__metadata__"]["lightning_meta"]) | {key: value}
        changed = header | {"__metadata__": {"lightning_meta": json.dumps(about)}}
        written = json.dumps(changed).encode()
        path = tmp_path / "mine.safetensors"
        path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + size :])
        assert "expected a" in refused(["test", *command(tmp_path / "logs", path)], capsys)
    path.write_bytes(content[:-1])
    assert "damaged" in refused(["test", *command(tmp_path / "logs", path)], capsys)


def test_a_class_loads_checkpoints_of_runs_alone() -> None:
    with pytest.raises(MetaLearningError, match="a learner without its run: use load_learner"):
        MAML.load_from_checkpoint(pretrained()[NAME])
