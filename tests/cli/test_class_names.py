"""Short names that several classes have: ours, then PyTorch's, else refused with all of them."""

from collections import defaultdict
from typing import Any

import pytest
import pytorch_lightning
import torch
import torchvision  # noqa: F401  (its classes are subclasses of torch.nn.Module, too)
from jsonargparse import _typehints
from torch import nn

from lightning_meta import backbones, cli
from lightning_meta.cli.class_names import choose_class, prefer_own_classes
from lightning_meta.data import EpisodeDataModule
from lightning_meta.inner import InnerOptimizer
from lightning_meta.learner import MetaLearner
from tests.cli.helpers import refused

BASES: dict[str, type] = {
    "model": MetaLearner,
    "data": EpisodeDataModule,
    "backbone": nn.Module,
    "inner.optimizer": InnerOptimizer,
    "optimizer": torch.optim.Optimizer,
    "lr_scheduler": torch.optim.lr_scheduler.LRScheduler,
    "callbacks": pytorch_lightning.Callback,
    "logger": pytorch_lightning.loggers.Logger,
    "strategy": pytorch_lightning.strategies.Strategy,
    "accelerator": pytorch_lightning.accelerators.Accelerator,
    "profiler": pytorch_lightning.profilers.Profiler,
    "plugins": pytorch_lightning.plugins.Precision,
}
LIBRARIES = ("lightning_meta.", "torch.", "torchvision.", "pytorch_lightning.", "torchmetrics.")


def several(base: type) -> dict[str, list[str]]:
    """Names that jsonargparse finds more than once, with the paths that are not a test's own."""
    paths = defaultdict(list)
    for path in _typehints.get_all_subclass_paths(base):
        if path.startswith(LIBRARIES):
            paths[path.rpartition(".")[2]].append(path)
    return {name: found for name, found in paths.items() if len(found) > 1}


@pytest.mark.parametrize("key", BASES)
def test_a_name_that_several_classes_have_is_ours_or_pytorchs_or_refused(key: str) -> None:
    for name, paths in several(BASES[key]).items():
        own = [path for path in paths if path.startswith("lightning_meta.")]
        plain = [path for path in paths if path.startswith(("torch.nn.", "torch.optim."))]
        libraries = [[path for path in paths if path.startswith(library)] for library in LIBRARIES]
        first = own or plain or next(filter(None, libraries))
        if len(first) == 1:
            assert [choose_class(name, paths)] == first
        else:
            assert not own
            with pytest.raises(ValueError, match=f"Several classes are called {name}: "):
                choose_class(name, paths)


@pytest.mark.parametrize("name", backbones.__all__)
def test_every_name_of_this_package_is_taken_as_its_own(name: str) -> None:
    kind: Any = getattr(backbones, name)
    if not isinstance(kind, type):
        return
    prefer_own_classes()
    module, _, found = _typehints.resolve_class_path_by_name(nn.Module, name).rpartition(".")
    assert module.startswith("lightning_meta")
    assert found == name


def test_a_class_of_a_persons_own_with_a_name_of_ours_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="Several classes are called Conv4: lightning_meta.Conv4, mine.Conv4"):
        choose_class("Conv4", ["mine.Conv4", "lightning_meta.Conv4"])


def test_the_command_line_names_all_that_it_cannot_choose_from(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(["fit", "--model=MAML", "--model.backbone=MBConv", "--data=GlyphEpisodes"], capsys)
    assert "model.backbone is MBConv, as several classes are called: give one of torchvision.models.eff" in error


def test_the_command_line_takes_our_mlp(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model=MAML", "--model.backbone=MLP", "--model.backbone.inputs=784", "--data=GlyphEpisodes"]
    assert cli.main(["fit", *arguments, "--print_config"]) == 0
    assert "class_path: lightning_meta.MLP" in capsys.readouterr().out
