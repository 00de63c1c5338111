"""Under another default precision of PyTorch the images and the tasks stay the same, and a fit says what to set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP
from lightning_meta.data import ArrayEpisodes, EpisodeDataModule, QuadraticEpisodes, SinusoidEpisodes
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from tests.data.folder_files import CLASSES, held_out, write_class
from tests.data.tiny_episodes import SPLITS, TinyEpisodes, assert_same
from tests.helpers import glyphs, trainer

ARRAYS: dict[str, Any] = {"y": np.arange(12).repeat(4), "ways": 2, "validation_classes": 3, "test_classes": 3}
NUMBERS = np.random.default_rng(0).normal(size=(48, 5)) * 50
SOURCES: dict[str, Callable[[], EpisodeDataModule]] = {
    "glyphs": glyphs,
    "bytes": TinyEpisodes,
    "floats": lambda: ArrayEpisodes(x=NUMBERS, **ARRAYS),
    "token ids": lambda: ArrayEpisodes(x=NUMBERS.astype(int), **ARRAYS),
    "sinusoids": SinusoidEpisodes,
    "quadratics": QuadraticEpisodes,
}


def assert_same_tasks(source: Callable[[], EpisodeDataModule]) -> None:
    def drawn() -> list[Episode]:
        return [data.draw(split, torch.arange(3)) for data in [source()] for split in SPLITS]

    expected = drawn()
    torch.set_default_dtype(torch.float64)
    try:
        found = drawn()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.support_x.dtype == other.support_x.dtype != torch.float64
        assert_same(one, other)


@pytest.mark.parametrize("name", SOURCES)
def test_tasks_do_not_depend_on_the_default_precision(name: str) -> None:
    assert_same_tasks(SOURCES[name])


def test_nor_do_pictures_of_folders_and_their_moments(tmp_path: Path) -> None:
    for name in CLASSES:
        write_class(tmp_path, name)
    assert_same_tasks(lambda: held_out(tmp_path, normalise=True))


@pytest.mark.usefixtures("float64")
def test_a_fit_in_double_precision_says_what_to_set(tmp_path: Path) -> None:
    def learner() -> MAML:
        return MAML(MLP(3, 784, hidden=[4]), InnerLoop(steps=1, evaluation_steps=1), compile=False, task_chunk=2)

    with pytest.raises(MetaLearningError, match=r"give .to\(torch.float64\), or set trainer.precision to 64-true"):
        trainer(tmp_path).fit(learner(), glyphs())
    run = trainer(tmp_path, max_steps=1, precision="64-true")
    run.fit(learner(), glyphs())
    assert run.global_step == 1
