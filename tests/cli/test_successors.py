"""Algorithms that came after the first three, by the command line: train, test, and load without arguments."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta import algorithms
from lightning_meta.cli import main
from lightning_meta.inner import LayerRates
from lightning_meta.learner import MetaLearner

DATA = ["--data=GlyphEpisodes", "--data.train_classes=20", "--data.validation_classes=6", "--data.test_classes=6"]
DATA += ["--data.ways=3", "--data.shots=2", "--data.meta_batch_size=2", "--data.validation_tasks=3"]
DATA += ["--data.test_tasks=5", "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
DATA += ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
PIXELS = ["--model.backbone=lightning_meta.backbones.MLP", "--model.backbone.inputs=784", "--model.backbone.hidden=[]"]
NETWORK = [*PIXELS[:-1], "--model.backbone.hidden=[8]", "--model.backbone.batch_norm=true"]
STEPS = ["--model.inner.steps=2", "--model.inner.evaluation_steps=2"]
RATES = ["--model.inner.optimizer=MetaSGD", "--model.inner.optimizer.lr=0.1"]
LAYERS = ["--model.inner.optimizer=LayerRates", "--model.inner.optimizer.steps=2"]

RUNS: dict[str, tuple[str, list[str], int]] = {  # name -> algorithm, its settings, steps in evaluation
    "anil": ("ANIL", [*NETWORK, *STEPS], 2),
    "boil": ("BOIL", [*NETWORK, *STEPS], 2),
    "meta-sgd": ("MAML", [*NETWORK, *STEPS, *RATES], 2),
    "first-order meta-sgd": ("FOMAML", [*NETWORK, *STEPS, *RATES], 2),
    "layer rates": ("MAML", [*NETWORK, *STEPS, *LAYERS], 2),
    "imaml": ("IMAML", [*NETWORK, *STEPS, "--model.regularisation=3.0", "--model.conjugate_gradient_steps=2"], 2),
    "maml++": ("MAMLPlusPlus", [*NETWORK, *STEPS, "--model.multi_step_loss=0.5", "--model.inner.optimizer.lr=0.1"], 2),
    "prototypical networks": ("PrototypicalNetworks", NETWORK, 0),
    "matching networks": ("MatchingNetworks", NETWORK, 0),
    "fine-tuning": ("FineTuning", [*NETWORK, "--model.inner.steps=0", "--model.inner.evaluation_steps=3"], 3),
    "nearest neighbour": ("NearestNeighbour", NETWORK, 0),
    "nearest pixels": ("NearestNeighbour", PIXELS, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_trains_tests_and_loads(name: str, tmp_path: Path) -> None:
    algorithm, settings, steps = RUNS[name]
    arguments = [f"--model={algorithm}", *settings, *DATA, f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments]) == 0
    run = tmp_path / "experiment" / "version_0"
    (checkpoint,) = run.glob("checkpoints/best*.ckpt")
    results = run / "checkpoints" / "results.json"
    (first,) = (entry["metrics"] for entry in json.loads(results.read_text()))
    results.unlink()
    assert main(["test", *arguments, f"--ckpt_path={checkpoint}"]) == 0
    (second,) = (entry["metrics"] for entry in json.loads(results.read_text()))
    assert first == second
    assert all(len(metric["mean"]) == steps + 1 for metric in first.values())

    kind: type[MetaLearner] = getattr(algorithms, algorithm)
    learner = kind.load_from_checkpoint(checkpoint, weights_only=True)
    saved = torch.load(checkpoint, weights_only=True)
    names = {name for part in kind.__mro__[:3] for name in inspect.signature(part).parameters}
    assert saved["hyper_parameters"].keys() <= {*names, "_instantiator"}
    assert learner.inner.evaluation_steps == steps
    torch.testing.assert_close(dict(learner.state_dict()), dict(saved["state_dict"]))
    check_settings(name, learner)


def check_settings(name: str, learner: Any) -> None:
    """What was given comes back."""
    if name == "imaml":
        assert (learner.regularisation, learner.conjugate_gradient_steps) == (3.0, 2)
    if name == "maml++":
        assert (learner.multi_step_loss, learner.first_order) == (0.5, 0.0)
        assert learner.inner.optimizer == LayerRates(0.1, 2)
    if name in ("fine-tuning", "nearest neighbour", "nearest pixels"):
        assert learner.classifier.out_features == 20
