"""Streams of tasks over ranks, workers and restarts, and settings that no run can use."""

import inspect
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_meta.data import ArrayEpisodes, EpisodeDataModule, GlyphEpisodes, OmniglotEpisodes
from lightning_meta.data.drawing import data_module as base
from lightning_meta.episode import InnerBatches
from lightning_meta.errors import MetaLearningError
from tests.data.tiny_episodes import TinyEpisodes, assert_same


def on_rank(rank: int, ranks: int, max_steps: int = 3, **changes: Any) -> TinyEpisodes:
    """Data as one of several ranks has it, in a run of a few meta-steps."""
    data = TinyEpisodes(**changes)
    total = SimpleNamespace(processed=0)  # batches that the trainer has worked through
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=total)))
    trainer: Any = SimpleNamespace(
        global_rank=rank,
        world_size=ranks,
        max_steps=max_steps,
        accumulate_grad_batches=2,
        fit_loop=loop,
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    data.trainer = trainer
    return data


def test_ranks_share_every_training_batch() -> None:
    whole = [episode.number for episode in on_rank(0, 1).train_dataloader()]
    shares = [[episode.number for episode in on_rank(rank, 2).train_dataloader()] for rank in range(2)]
    assert torch.equal(torch.stack(whole), torch.arange(24).view(6, 4))  # 3 meta-steps of 2 batches
    for batch, share, other in zip(whole, *shares, strict=True):
        assert len(share) == len(other) == 2
        assert torch.equal(torch.cat([share, other]).sort().values, batch)


def test_training_goes_on_where_the_checkpoint_ended() -> None:
    data = on_rank(0, 1)
    data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 0})
    assert next(iter(data.train_dataloader())).number.tolist() == [40, 41, 42, 43]
    data.trainer.fit_loop.epoch_loop.batch_progress.total.processed = 2  # type: ignore[union-attr]
    assert data.state_dict() == {"consumed_tasks": 48, "visit": 0, "consumed_batches": 2, "seed": 0}
    assert next(iter(data.train_dataloader())).number.tolist() == [48, 49, 50, 51]
    assert next(iter(data.test_dataloader())).number.tolist() == list(range(11))
    with pytest.raises(MetaLearningError, match="seed 1, but the seed is 0"):
        data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 1})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [4, None])
def test_tasks_come_several_times_in_a_row_with_further_steps(size: int | None, workers: int) -> None:
    data = on_rank(0, 1, max_steps=4, num_workers=workers)
    data.connect(InnerBatches(2, size, visits=3), InnerBatches())
    episodes = list(data.train_dataloader())
    assert [episode.number[0].item() for episode in episodes] == [0, 0, 0, 4, 4, 4, 8, 8]
    data.connect(InnerBatches(6, size), InnerBatches())
    for place, episode in enumerate(episodes):
        whole = data.draw("train", episode.number)
        visit = place % 3
        assert_same(episode, whole._replace(inner_order=whole.inner_order[:, 2 * visit : 2 * visit + 2]))
    assert len(data.test_dataloader()) == 1  # evaluation sees every task once


def test_visits_go_on_where_the_checkpoint_ended() -> None:
    data = on_rank(1, 2, max_steps=4)
    data.connect(InnerBatches(2, 4, visits=3), InnerBatches())
    expected = list(data.train_dataloader())
    progress = data.trainer.fit_loop.epoch_loop.batch_progress.total  # type: ignore[union-attr]
    for done in range(1, 6):
        progress.processed = done
        state = data.state_dict()
        assert (state["consumed_tasks"], state["visit"]) == (done // 3 * 4, done % 3)
        resumed = on_rank(1, 2, max_steps=4)
        resumed.connect(data.inner_batches("train"), InnerBatches())
        resumed.load_state_dict(state)
        resumed.trainer.fit_loop.epoch_loop.batch_progress.total.processed = done  # type: ignore[union-attr]
        for ours, theirs in zip(list(resumed.train_dataloader()), expected[done:], strict=False):
            assert_same(ours, theirs)
        resumed.trainer.fit_loop.epoch_loop.batch_progress.total.processed = done + 2  # type: ignore[union-attr]
        later = resumed.state_dict()
        assert (later["consumed_tasks"], later["visit"]) == ((done + 2) // 3 * 4, (done + 2) % 3)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("tasks", [1, 4, 5, 11])
def test_evaluation_counts_every_task_once_on_any_number_of_ranks(
    ranks: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "EVALUATION_BATCH", 4)
    loaders = [on_rank(rank, ranks, test_tasks=tasks).test_dataloader() for rank in range(ranks)]
    batches = [[episode.number for episode in loader] for loader in loaders]
    assert {len(own) for own in batches} == {-(-tasks // 4)}  # ranks must take part in the same steps
    assert torch.cat([number for own in batches for number in own]).sort().values.tolist() == list(range(tasks))


def test_workers_draw_the_same_episodes() -> None:
    here, elsewhere = (list(on_rank(0, 1, num_workers=workers).train_dataloader()) for workers in (0, 2))
    for one, other in zip(here, elsewhere, strict=True):
        assert_same(one, other)


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
        ({"shots": 5, "queries": 2}, "predict", "5 shots . 2 queries = 7 examples .* has 6: lower data.shots"),
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
