"""Streams of tasks over ranks, workers and restarts."""

import pytest
import torch

from lightning_meta.data import SinusoidEpisodes
from lightning_meta.data.drawing import data_module as base
from lightning_meta.data.drawing.sampler import TaskDataset
from lightning_meta.episode import InnerBatches
from lightning_meta.errors import MetaLearningError
from tests.data.tiny_episodes import assert_same, on_rank


def test_ranks_share_every_training_batch() -> None:
    whole = [episode.task_ids for episode in on_rank(0, 1).train_dataloader()]
    shares = [[episode.task_ids for episode in on_rank(rank, 2).train_dataloader()] for rank in range(2)]
    assert torch.equal(torch.stack(whole), torch.arange(24).view(6, 4))  # 3 meta-steps of 2 batches
    for batch, share, other in zip(whole, *shares, strict=True):
        assert len(share) == len(other) == 2
        assert torch.equal(torch.cat([share, other]).sort().values, batch)


def test_training_goes_on_where_the_checkpoint_ended() -> None:
    data = on_rank(0, 1)
    data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 0})
    assert next(iter(data.train_dataloader())).task_ids.tolist() == [40, 41, 42, 43]
    data.trainer.fit_loop.epoch_loop.batch_progress.total.processed = 2  # type: ignore[union-attr]
    assert data.state_dict() == {"consumed_tasks": 48, "visit": 0, "consumed_batches": 2, "seed": 0}
    assert next(iter(data.train_dataloader())).task_ids.tolist() == [48, 49, 50, 51]
    assert next(iter(data.test_dataloader())).task_ids.tolist() == list(range(11))
    with pytest.raises(MetaLearningError, match="seed 1, but the seed is 0"):
        data.load_state_dict({"consumed_tasks": 40, "consumed_batches": 0, "seed": 1})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [4, None])
def test_tasks_come_several_times_in_a_row_with_further_steps(size: int | None, workers: int) -> None:
    data = on_rank(0, 1, max_steps=4, num_workers=workers)
    data.connect(InnerBatches(2, size, visits=3), InnerBatches())
    episodes = list(data.train_dataloader())
    assert [episode.task_ids[0].item() for episode in episodes] == [0, 0, 0, 4, 4, 4, 8, 8]
    data.connect(InnerBatches(6, size), InnerBatches())
    for place, episode in enumerate(episodes):
        whole = data.draw("train", episode.task_ids)
        visit = place % 3
        assert_same(episode, whole._replace(inner_order=whole.inner_order[:, 2 * visit : 2 * visit + 2]))
    assert len(data.test_dataloader()) == 1  # evaluation sees every task once


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_drawn_ahead_is_what_a_draw_of_its_own_gives(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(on_rank(0, 1)), "drawn_together", 3)
    data = on_rank(1, 2, max_steps=5, num_workers=workers)
    for place, episode in enumerate(data.train_dataloader()):
        assert_same(episode, data.draw("train", torch.tensor([4 * place + 1, 4 * place + 3])))
    assert [len(episode.task_ids) for episode in data.test_dataloader()] == [5]  # of eleven tasks, half


def test_a_worker_passes_over_what_it_has_drawn_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    data, drawn = SinusoidEpisodes(meta_batch_size=3), []
    draw = SinusoidEpisodes.draw
    monkeypatch.setattr(SinusoidEpisodes, "draw", lambda *args: drawn.append(args) or draw(*args))
    tasks = TaskDataset(data, "train")
    for batch in range(0, 3 * data.drawn_together, 3):  # those of the first of three workers
        numbers = torch.arange(3 * batch, 3 * batch + 3)
        assert torch.equal(tasks[numbers, 0].task_ids, numbers)
    assert len(drawn) == 3


def test_one_draw_serves_the_batches_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    kind = type(on_rank(0, 1))
    draw = kind.draw
    monkeypatch.setattr(kind, "drawn_together", 3)
    monkeypatch.setattr(kind, "draw", lambda self, *args: drawn.append(args[1].tolist()) or draw(self, *args))
    assert len(list(on_rank(1, 2, max_steps=3).train_dataloader())) == 6
    assert drawn == [[1, 3, 5, 7, 9, 11], [13, 15, 17, 19, 21, 23]]


def test_waves_are_the_same_however_many_are_drawn_together() -> None:
    data = SinusoidEpisodes(meta_batch_size=3)
    together = data.draw("train", torch.arange(3 * data.drawn_together))
    for place, part in enumerate(together.chunks(3)):
        assert_same(part, data.draw("train", torch.arange(3 * place, 3 * place + 3)))


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
    batches = [[episode.task_ids for episode in loader] for loader in loaders]
    assert {len(own) for own in batches} == {-(-tasks // 4)}  # ranks must take part in the same steps
    assert torch.cat([number for own in batches for number in own]).sort().values.tolist() == list(range(tasks))


def test_workers_draw_the_same_episodes() -> None:
    here, elsewhere = (list(on_rank(0, 1, num_workers=workers).train_dataloader()) for workers in (0, 2))
    for one, other in zip(here, elsewhere, strict=True):
        assert_same(one, other)
