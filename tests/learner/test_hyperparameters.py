"""What a checkpoint keeps of a learner's settings, and that checkpoints of the first layout still load."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lightning_meta.algorithms import MAML, NearestNeighbour, Reptile
from lightning_meta.backbones import MLP
from lightning_meta.cli import main
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner.checkpoints import changed_settings
from lightning_meta.learner.hyperparameters import describe
from tests.helpers import glyph_network, glyphs, trainer


class Layered(Reptile):
    def __init__(self, rates: Any = None, **settings: Any) -> None:
        super().__init__(**settings)


class Settled(MAML):
    """Settles an argument of the base by itself."""

    def __init__(self, backbone: nn.Module, steps: int = 2, **settings: Any) -> None:
        super().__init__(backbone, InnerLoop(SGD(0.1), steps, evaluation_steps=1), **settings)


def test_settings_that_a_subclass_hands_on_are_kept(tmp_path: Path) -> None:
    inner = InnerLoop(SGD(0.3), steps=2, evaluation_steps=1)
    learner = Layered(backbone=glyph_network(), inner=inner, carry_moments=False, task_chunk=2, compile=False)
    for _ in range(2):  # loaded, trained on, saved and loaded again
        run = trainer(tmp_path, max_steps=2)
        run.fit(learner, glyphs())
        run.save_checkpoint(tmp_path / "own.ckpt")
        learner = Layered.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True, backbone=glyph_network())
        assert learner.inner == inner
        assert not learner.carry_moments
        assert learner.task_map.chunk.size == 2


def test_a_learner_of_the_command_line_that_was_loaded_and_trained_on_loads_again_alone(tmp_path: Path) -> None:
    fit = ["fit", "--model=MAML", "--model.backbone=MLP", "--model.backbone.inputs=784", "--model.backbone.hidden=[4]"]
    fit += ["--model.loss=torch.nn.CrossEntropyLoss", "--model.loss.label_smoothing=0.1", "--model.compile=false"]
    fit += ["--model.lr_scheduler=CosineAnnealingLR", "--model.inner.evaluation_steps=1", "--data=GlyphEpisodes"]
    fit += ["--data.train_classes=10", "--data.test_classes=10", "--data.test_tasks=2", "--trainer.accelerator=cpu"]
    fit += [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1", "--trainer.limit_val_batches=0"]
    assert main([*fit, "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]) == 0
    (path,) = tmp_path.rglob("last.ckpt")
    learner = MAML.load_from_checkpoint(path)
    run = trainer(tmp_path, max_steps=1)
    run.fit(learner, glyphs(ways=5, validation_classes=5, test_classes=5))
    run.save_checkpoint(tmp_path / "again.ckpt")
    loaded = MAML.load_from_checkpoint(tmp_path / "again.ckpt")
    saved = torch.load(path, weights_only=True)["hyper_parameters"]
    assert loaded.hparams.keys() == saved.keys()
    for name in saved.keys() - {"loss"}:  # which is described in another order
        assert loaded.hparams[name] == saved[name], name
    assert loaded.hparams["loss"]["init_args"]["label_smoothing"] == 0.1
    torch.testing.assert_close(dict(loaded.state_dict()), dict(learner.state_dict()), rtol=0, atol=0)


def test_a_checkpoint_without_a_backbone_asks_for_it(tmp_path: Path) -> None:
    run, learner = trainer(tmp_path), MAML(glyph_network(), InnerLoop(evaluation_steps=1), compile=False)
    run.fit(learner, glyphs())
    run.save_checkpoint(tmp_path / "own.ckpt")
    said = r"own.ckpt holds no backbone, .* give it again, as in MAML.load_from_checkpoint\(path, backbone=...\)"
    with pytest.raises(MetaLearningError, match=said):
        MAML.load_from_checkpoint(tmp_path / "own.ckpt")
    loaded = MAML.load_from_checkpoint(tmp_path / "own.ckpt", backbone=glyph_network())
    assert "backbone" not in loaded.hparams


def test_settings_that_a_subclass_settles_are_not_kept(tmp_path: Path) -> None:
    run, learner = trainer(tmp_path), Settled(glyph_network(), steps=3, outer_reduction="sum", compile=False)
    run.fit(learner, glyphs())
    run.save_checkpoint(tmp_path / "own.ckpt")
    loaded = Settled.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True, backbone=glyph_network())
    assert (loaded.inner.steps, loaded.outer_reduction) == (3, "sum")
    assert "inner" not in loaded.hparams
    assert "inner" not in NearestNeighbour(glyph_network()).hparams


def test_classes_are_described_by_their_public_path() -> None:
    assert describe(MLP) == "lightning_meta.backbones.MLP"
    assert describe(SGD(0.1)) == {"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": 0.1}}
    assert describe(torch.optim.Adam) == "torch.optim.Adam"
    assert describe(lr_scheduler.CosineAnnealingLR) == "torch.optim.lr_scheduler.CosineAnnealingLR"
    assert describe(nn.functional.cross_entropy) == "torch.nn.functional.cross_entropy"


def test_a_checkpoint_of_the_first_layout_loads(tmp_path: Path) -> None:
    """It names classes by their modules, and a schedule by its class alone."""
    learner = MAML(glyph_network(), InnerLoop(SGD(0.3), 2, evaluation_steps=1), compile=False)
    run = trainer(tmp_path)
    run.fit(learner, glyphs())
    run.save_checkpoint(tmp_path / "own.ckpt")
    checkpoint = torch.load(tmp_path / "own.ckpt", weights_only=True)
    settings = {"outputs": 3, "filters": 4}
    checkpoint["hyper_parameters"] |= {
        "backbone": {"class_path": "lightning_meta.backbones.conv4.Conv4", "init_args": settings},
        "lr_scheduler": "torch.optim.lr_scheduler.CosineAnnealingLR",
    }
    rule = checkpoint["hyper_parameters"]["inner"]["optimizer"]
    rule["class_path"] = "lightning_meta.inner.optimizers.SGD"
    torch.save(checkpoint, tmp_path / "first.ckpt")
    loaded = MAML.load_from_checkpoint(tmp_path / "first.ckpt", weights_only=True)
    assert loaded.inner == learner.inner
    torch.testing.assert_close(dict(loaded.state_dict()), dict(learner.state_dict()), rtol=0, atol=0)


def test_an_argument_without_a_plain_form_is_asked_for_again(tmp_path: Path) -> None:
    """Its default would train on by another rule, silently."""
    run, learner = (
        trainer(tmp_path),
        MAML(glyph_network(), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.3)),
    )
    run.fit(learner, glyphs())
    run.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(MetaLearningError, match="trained with its own optimizer, which could not be written down"):
        MAML.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True, backbone=glyph_network())


def test_settings_that_differ_are_those_of_another_value_or_class() -> None:
    """Classes of this package have moved between modules; those of others are told apart by all of their path."""
    saved = {
        "backbone": {"class_path": "lightning_meta.backbones.Conv4", "init_args": {"filters": 64, "gone": 1}},
        "inner": {"steps": 5, "sizes": [1, 2]},
        "layers": [{"class_path": "lightning_meta.backbones.MLP", "init_args": {"sizes": [1, 2]}}],
        "loss": {"class_path": "torch.nn.MSELoss"},
    }
    own = {
        "backbone": {"class_path": "lightning_meta.backbones.conv4.Conv4", "init_args": {"filters": 32, "new": 1}},
        "inner": {"steps": 5, "sizes": (1, 2)},
        "layers": [{"class_path": "lightning_meta.backbones.mlp.MLP", "init_args": {"sizes": (1, 2)}}],
        "loss": {"class_path": "mine.MSELoss"},
    }
    assert {one.name: (one.saved, one.own) for one in changed_settings(saved, own)} == {
        "model.backbone.filters": ("64", "32"),
        "model.loss.class_path": ("torch.nn.MSELoss", "mine.MSELoss"),
    }
