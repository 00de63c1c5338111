"""Fit, validate, test and predict, for every algorithm."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_meta import algorithms
from lightning_meta.algorithms import MAML, Reptile
from lightning_meta.backbones import Conv4
from lightning_meta.cli import main
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from tests.cli.helpers import adapts, small

ALGORITHMS = sorted({*algorithms.__all__} - {"MetaLearner", "PolicyGradientMAML", "TRPOMAML"})  # they see no images
COMPILED = ("MAML", "Reptile", "PrototypicalNetworks")  # of each kind one


class OutputsOnly(nn.Sequential):
    """A backbone whose only argument is the number that the command line hands over."""

    def __init__(self, outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, outputs))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fit_validate_test_predict_and_load(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = 2 if adapts(algorithm) else 0
    # Tracing takes seconds; the compiled gradients of all of them are in tests/algorithms.
    arguments = [*small(tmp_path, algorithm), *["--model.compile=false"] * (algorithm not in COMPILED)]
    assert main(["fit", *arguments]) == 0
    run = tmp_path / "experiment" / "version_0"
    (checkpoint,) = run.glob("checkpoints/best*.ckpt")
    assert "over 5 tasks of 3 queries" in capsys.readouterr().out
    for command in ("validate", "test", "predict"):
        assert main([command, *arguments, f"--ckpt_path={checkpoint}"]) == 0
    assert "over 3 tasks" in capsys.readouterr().out
    (file,) = tmp_path.rglob("predictions_0.pt")
    predictions = torch.load(file, weights_only=True)
    assert torch.cat([batch["task_ids"] for batch in predictions]).tolist() == [0, 1, 2, 3, 4]
    assert predictions[0]["outputs"].shape == (5, 3, 3)

    entries = json.loads((run / "checkpoints" / "results.json").read_text())
    assert [entry["split"] for entry in entries] == ["validation", "test"]
    assert {entry["meta_steps"] for entry in entries} == {2}
    for entry in entries:
        expected = {"experiment": "experiment", "checkpoint": checkpoint.name, "members": 1, "seed": 0}
        expected |= {"ways": 3, "shots": 2, "queries": 1}
        assert expected.items() <= entry.items()
        assert entry["minutes"] > 0
        assert entry["device"].startswith("cpu, ")
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    for target, guess in zip(predictions[0]["targets"][0], predictions[0]["outputs"][0].argmax(-1), strict=True):
        confusion[target, guess] += 1
    assert entries[1]["confusion"] == confusion.tolist()
    names = {
        f"{part}_{kind}" for part in ("support", "query", "query_nontransductive") for kind in ("loss", "accuracy")
    }
    for entry, tasks in zip(entries, (3, 5), strict=True):
        assert entry["metrics"].keys() == names
        assert all(m["tasks"] == tasks and len(m["mean"]) == steps + 1 for m in entry["metrics"].values())
    with (run / "checkpoints" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 6 * (steps + 1)

    learner = getattr(algorithms, algorithm).load_from_checkpoint(checkpoint, weights_only=True)
    assert isinstance(learner, MetaLearner)
    assert learner.inner.evaluation_steps == steps
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.testing.assert_close(dict(learner.state_dict()), dict(saved))


@pytest.mark.slow
def test_what_is_logged(tmp_path: Path) -> None:
    assert main(["fit", *small(tmp_path)]) == 0
    run = tmp_path / "experiment" / "version_0"
    with (run / "metrics.csv").open() as file:
        logged = set(csv.DictReader(file).fieldnames or [])
    expected = {"train/outer_loss", "train/tasks_per_second", "lr-Adam", "val_accuracy", "val_loss"}
    expected |= {f"train/{part}_accuracy/step_{step}" for part in ("support", "query") for step in range(2)}
    expected |= {
        f"{stage}/{part}_{kind}/step_{step}{protocol}"
        for stage in ("val", "test")
        for kind in ("loss", "accuracy")
        for step in range(3)
        for part, protocol in (("support", ""), ("query", ""), ("query", "_nontransductive"))
    }
    assert expected <= logged
    for name in ("config.yaml", "adaptation.png", "confusion.png", "episode.png"):
        assert (run / name).stat().st_size > 0
    assert list(run.glob("events.out.tfevents.*"))


def test_reptile_trains_without_queries(tmp_path: Path) -> None:
    assert main(["fit", *small(tmp_path, "Reptile"), "--data.train_queries=0"]) == 0
    with (tmp_path / "experiment" / "version_0" / "metrics.csv").open() as file:
        logged = set(csv.DictReader(file).fieldnames or [])
    assert "train/support_accuracy/step_0" in logged
    assert "train/query_accuracy/step_0" not in logged


def test_a_checkpoint_made_in_python_loads(tmp_path: Path) -> None:
    from pytorch_lightning import Trainer

    from lightning_meta.data import GlyphEpisodes

    torch.manual_seed(0)
    learner = Reptile(Conv4(3, filters=4), InnerLoop(SGD(0.3), steps=2, evaluation_steps=1), carry_moments=False)
    data = GlyphEpisodes(ways=3, train_classes=6, validation_classes=4, test_classes=4, meta_batch_size=2, test_tasks=2)
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, logger=False, accelerator="cpu", limit_val_batches=0,
                      enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(learner, data)
    path = tmp_path / "one.ckpt"
    trainer.save_checkpoint(path)
    loaded = Reptile.load_from_checkpoint(path, weights_only=True, backbone=Conv4(3, filters=4))
    assert loaded.inner == learner.inner
    assert loaded.carry_moments is False
    torch.testing.assert_close(dict(loaded.state_dict()), dict(learner.state_dict()))
    trainer.test(loaded, data, verbose=False)  # with Lightning's own default of inference_mode


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Six meta-steps in one go equal three, a restart, and three more."""

    def run(root: Path, steps: int, *more: str) -> dict[str, Any]:
        arguments = ["fit", *small(root, "Reptile", steps), "--model.inner.optimizer=Adam", *more]
        arguments.append("--model.task_chunk=1")  # the fastest size, on which rounding depends, is another each time
        assert main([*arguments, "--trainer.limit_val_batches=0", "--model.lr_scheduler=null"]) == 0
        (path,) = sorted(root.rglob("last.ckpt"))[-1:]
        return torch.load(path, weights_only=True)

    whole = run(tmp_path / "whole", 6)
    first = run(tmp_path / "first", 3)
    assert first["GlyphEpisodes"]["consumed_tasks"] == 6
    path = next((tmp_path / "first").rglob("last.ckpt"))
    second = run(tmp_path / "second", 6, f"--ckpt_path={path}")
    assert second["train_seconds"] > first["train_seconds"] > 0
    assert second["GlyphEpisodes"] == whole["GlyphEpisodes"]
    assert whole["GlyphEpisodes"] == {"consumed_tasks": 12, "visit": 0, "consumed_batches": 6, "seed": 0}
    torch.testing.assert_close(dict(second["state_dict"]), dict(whole["state_dict"]), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["MAML", "Reptile"])
def test_a_deterministic_run_repeats_to_the_last_digit(algorithm: str, tmp_path: Path) -> None:
    arguments = [*small(tmp_path, algorithm), "--trainer.deterministic=true"]
    assert main(["fit", *arguments]) == 0
    assert main(["fit", *arguments]) == 0
    assert main(["fit", *arguments, "--seed_everything=1"]) == 0
    paths = sorted(tmp_path.rglob("results.json"))
    first, second, other = (json.loads(path.read_text())[0]["metrics"] for path in paths)
    assert first == second
    assert first != other


def test_ways_reach_a_backbone_that_takes_nothing_else(tmp_path: Path) -> None:
    arguments = [*small(tmp_path), f"--model.backbone={__name__}.OutputsOnly"]
    arguments.remove("--model.backbone=Conv4")
    arguments.remove("--model.backbone.filters=4")
    assert main(["fit", *arguments]) == 0
    (checkpoint,) = tmp_path.rglob("best*.ckpt")
    assert MAML.load_from_checkpoint(checkpoint, weights_only=True).backbone[-1].out_features == 3


def test_help_does_not_import_learn2learn() -> None:
    code = (
        "import sys\n"
        "from lightning_meta.cli import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('learn2learn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.slow
def test_the_last_checkpoint_is_of_the_last_step(tmp_path: Path) -> None:
    assert main(["fit", *small(tmp_path, steps=3)]) == 0  # validated after the second
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 3
