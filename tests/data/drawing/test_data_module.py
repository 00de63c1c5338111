"""Settings that no run can use, and subclasses of data modules."""

import inspect
import re
from typing import Any

import numpy as np
import pytest

from lightning_meta.data import ArrayEpisodes, EpisodeDataModule, GlyphEpisodes, OmniglotEpisodes
from lightning_meta.errors import MetaLearningError
from tests.data.tiny_episodes import TinyEpisodes, on_rank


def test_a_split_without_validation_tasks_has_no_loader() -> None:
    data = TinyEpisodes(validation_tasks=0)
    data.setup("fit")
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("changes", "stage", "message"),
    [
        ({"ways": 6}, "test", "data.ways is 6, but the test split has 5 classes"),
        ({"ways": 25, "rotations": "classes"}, "fit", "data.ways is 25, but the train split has 24 classes"),
        ({"ways": 6}, "validate", "lower data.ways, or take data with more validation classes, or set data."),
        ({"validation_tasks": 0}, "validate", "data.validation_tasks is 0, so there are no validation tasks: raise it"),
        (
            {"shots": 6, "queries": 2},
            "predict",
            "6 shots . 2 queries = 8 examples .* 2 of the 5 classes .* 3 have 7 or more: lower data.shots",
        ),
        ({"train_shots": 5}, "fit", "5 shots . 3 queries = 8 examples .* data.train_shots"),
    ],
)
def test_tasks_that_the_images_cannot_fill_are_refused(changes: dict[str, Any], stage: str, message: str) -> None:
    with pytest.raises(MetaLearningError, match=message):
        TinyEpisodes(**changes).setup(stage)


def arrays(**changes: Any) -> ArrayEpisodes:
    settings = {"validation_classes": 2, "test_classes": 2, "ways": 2} | changes
    return ArrayEpisodes(x=np.zeros((20, 3)), y=np.arange(10).repeat(2), **settings)


def glyphs(**changes: Any) -> GlyphEpisodes:
    settings = {"train_classes": 4, "validation_classes": 4, "test_classes": 4, "drawings": 2, "ways": 4} | changes
    return GlyphEpisodes(**settings)


@pytest.mark.parametrize(
    ("data", "stage", "said"),
    [
        (arrays(ways=3), "validate", "lower data.ways, or raise data.validation_classes, or set data.validation_tasks"),
        (arrays(ways=3), "test", "lower data.ways, or raise data.test_classes, or set data.test_tasks to 0"),
        (arrays(test_classes=0), "test", "has 0 classes: raise data.test_classes, or set data.test_tasks to 0"),
        (arrays(ways=7), "fit", "lower data.ways, or lower data.validation_classes or data.test_classes"),
        (arrays(validation_classes=0), "validate", "no validation classes: raise data.validation_classes"),
        (glyphs(ways=5), "fit", "lower data.ways, or raise data.train_classes"),
        (glyphs(validation_classes=3), "fit", "lower data.ways, or raise data.validation_classes, or set data.valid"),
        (OmniglotEpisodes(split="lake"), "validate", "no validation classes: set data.split to vinyals or finn"),
        (OmniglotEpisodes(split="lake", ways=150), "validate", "no validation classes: set data.split to vinyals"),
    ],
)
def test_too_few_classes_are_refused_with_settings_that_the_data_have(
    data: EpisodeDataModule, stage: str, said: str
) -> None:
    with pytest.raises(MetaLearningError) as refused:
        data.setup(stage)
    message = str(refused.value)
    assert said in message
    assert set(re.findall(r"data\.(\w+)", message)) <= inspect.signature(type(data)).parameters.keys()


def test_a_split_of_omniglot_is_named_only_where_it_has_the_classes() -> None:
    assert OmniglotEpisodes(ways=500).more_classes("test") == "set data.split to lake"
    assert OmniglotEpisodes(ways=1150).more_classes("train") == "set data.split to nichol"
    turned = OmniglotEpisodes(ways=4000, rotations="classes").more_classes("train")
    assert turned == "set data.split to vinyals or finn or nichol"
    assert OmniglotEpisodes(ways=700).more_classes("test") == "take data with more test classes"


@pytest.mark.parametrize("name", ["ways", "shots", "queries", "meta_batch_size"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(MetaLearningError, match=f"data.{name} is 0, expected at least 1"):
        TinyEpisodes(**{name: 0})


def test_streams_that_no_run_can_use_are_refused() -> None:
    with pytest.raises(MetaLearningError, match=r"data.meta_batch_size is 4 .* 3 ranks"):
        on_rank(0, 3).train_dataloader()
    with pytest.raises(MetaLearningError, match=r"trainer.max_steps is -1"):
        on_rank(0, 1, max_steps=-1).train_dataloader()
    with pytest.raises(MetaLearningError, match=r"data.test_tasks is 0"):
        on_rank(0, 1, test_tasks=0).setup("test")
