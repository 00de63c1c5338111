"""Learner files on the command line: those that come with the package by their names, and a person's own."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_meta import checkpoint_file, results_file
from lightning_meta.algorithms import MAML
from lightning_meta.cli import listing, main
from lightning_meta.cli.sweep.state import parse
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import load_learner, pretrained
from lightning_meta.learner.checkpoints import changed_settings
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


def check(found: Path, checkpoint: str, split: str, mean: torch.Tensor) -> None:
    """The one evaluation in a file, with what the learner says of its training."""
    (entry,) = results_file.read(found)
    about = describe_checkpoint(pretrained()[NAME])
    assert (entry.split, entry.meta_steps, entry.minutes) == (split, about["meta_steps"], about["minutes"])
    assert entry.checkpoint == checkpoint
    metric = entry.metrics["query_loss"]
    torch.testing.assert_close(torch.tensor(metric.mean).double(), mean[metric.steps], rtol=1e-4, atol=1e-6)
    assert metric.mean[-1] < metric.mean[0] / 5


@pytest.mark.parametrize(("subcommand", "split"), [("test", "test"), ("validate", "validation")])
def test_a_learner_that_comes_with_the_package_is_measured_once_more(
    subcommand: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()  # does not hide the name
    shipped = sorted(pretrained()[NAME].parent.iterdir())
    assert main([subcommand, *command(tmp_path / "logs", NAME)]) == 0
    assert sorted(pretrained()[NAME].parent.iterdir()) == shipped  # the package is no place for results
    (found,) = tmp_path.rglob(results_file.NAME)
    assert found.parent == tmp_path / "logs" / CONFIG / "version_0"
    check(found, f"{NAME}.safetensors", split, losses(split))
    config = yaml.safe_load((found.parent / "config.yaml").read_text())
    assert config["ckpt_path"] == NAME  # and not where this machine has it


def test_a_learner_in_a_file_has_its_results_beside_it(tmp_path: Path) -> None:
    for folder in ("one", "other"):  # of the same name
        (tmp_path / folder).mkdir()
        path = shutil.copy(pretrained()[NAME], tmp_path / folder / "mine.safetensors")
        assert main(["test", *command(tmp_path / "logs", path, "--run=same")]) == 0
    for folder in ("one", "other"):
        check(tmp_path / folder / results_file.NAME, "mine.safetensors", "test", losses("test"))
    assert len([*tmp_path.rglob(results_file.NAME)]) == 2


def test_a_report_takes_no_shipped_learner_for_one_that_was_trained_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, NAME, "--run=mine")
    fit = [argument for argument in arguments if "ckpt_path" not in argument]
    short = ["--trainer.max_steps=4", "--trainer.val_check_interval=4", "--trainer.log_every_n_steps=2"]
    assert main(["fit", *fit, *short]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 0
    before = capsys.readouterr().out
    assert main(["test", *arguments, *short]) == 0
    assert main(["test", *command(tmp_path, NAME, "--seed_everything=1")]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 0
    after = capsys.readouterr()
    assert after.out == before
    assert f"note: skipped {tmp_path / CONFIG / 'version_0'}: no test results" in after.err


@pytest.mark.parametrize("name", pretrained())
def test_the_listed_command_has_the_settings_that_a_shipped_learner_was_trained_with(name: str) -> None:
    about = describe_checkpoint(pretrained()[name])
    arguments = shlex.split(listing.evaluation_command(name, about["command"]))[1:]
    settings = parse(arguments)
    changed = changed_settings(about["hyper_parameters"], settings["model"]["init_args"])
    assert {one.name.split(".")[1] for one in changed} <= {"optimizer", "lr_scheduler"}  # which a test does not use
    data = settings["data"]["init_args"]
    lengths = {"test_tasks", "validation_tasks"}
    given = {key: value for key, value in about["data_settings"].items() if key in data.keys() - lengths}
    assert {key: data[key] for key in given} == given
    assert settings["ckpt_path"] == name


def test_predictions_of_a_shipped_learner(tmp_path: Path) -> None:
    assert main(["predict", *command(tmp_path, NAME)]) == 0
    (found,) = tmp_path.rglob("predictions_0.pt")
    batches = torch.load(found, weights_only=True)
    outputs, targets = (torch.cat([batch[key] for batch in batches]) for key in ("outputs", "targets"))
    loss = (outputs - targets).square().double().mean()
    torch.testing.assert_close(loss, losses("test")[-1], rtol=1e-4, atol=1e-6)


def test_one_learner_is_no_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["test", *command(tmp_path, NAME, "--ensemble=3")], capsys)
    assert f"ensemble is 3, but ckpt_path is {NAME}, one learner: set ensemble to 1" in said


@pytest.mark.parametrize(
    ("subcommand", "checkpoint", "said"),
    [
        ("fit", NAME, f"ckpt_path is {NAME}, a learner without its run, from which a fit cannot go on"),
        ("fit", "mine.safetensors", "ckpt_path is mine.safetensors, a learner without its run"),
        (
            "test",
            "sinusoid_mamml",
            f"ckpt_path: sinusoid_mamml cannot be read as a checkpoint: there is no such file; did you mean {NAME}",
        ),
        ("test", f"{NAME}.safetensors", f"there is no such file; did you mean {NAME}"),
        ("test", "~nosuch", "there is no such file"),
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


def test_files_are_read_as_they_are_whatever_their_first_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, path = pretrained()[NAME].read_bytes(), tmp_path / "mine.safetensors"
    size = int.from_bytes(content[:8], "little")
    length = int.from_bytes(b"PK", "little")  # with which zip archives begin
    path.write_bytes(length.to_bytes(8, "little") + content[8 : 8 + size].ljust(length) + content[8 + size :])
    assert checkpoint_file.read(path)["global_step"] == describe_checkpoint(path)["meta_steps"]
    path.write_bytes(content[:-1])
    assert f"ckpt_path: {path} is damaged" in refused(["test", *command(tmp_path / "logs", path)], capsys)


def test_a_class_loads_checkpoints_of_runs_alone() -> None:
    with pytest.raises(MetaLearningError, match="a learner without its run: use load_learner"):
        MAML.load_from_checkpoint(pretrained()[NAME])
