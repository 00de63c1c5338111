"""How many tasks are vectorised together, and what happens when memory runs out."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.chunk_size import ChunkSize

CPU = torch.device("cpu")


def out_of_memory() -> RuntimeError:
    return RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")


def choose(chunk: ChunkSize, seconds: dict[int, float], tasks: int = 32) -> list[int]:
    """Let ``chunk`` choose where a size takes so long a task; returns the sizes that ran."""
    ran = []

    def run(size: int) -> None:
        ran.append(size)
        time.sleep(seconds[size] * size)

    chunk.tune(run, tasks, CPU, lambda size: size)
    return ran


def test_auto_takes_what_is_clearly_faster_and_chooses_once() -> None:
    chunk = ChunkSize("auto")
    assert set(choose(chunk, {1: 0.02, 16: 0.005, 64: 0.003}, tasks=64)) == {1, 16, 64}
    assert chunk.size == 64
    assert choose(chunk, {}) == []


def test_auto_may_choose_the_loop_and_stops_at_what_is_slower() -> None:
    chunk = ChunkSize("auto")
    assert set(choose(chunk, {1: 0.002, 16: 0.006, 64: 0.008}, tasks=1000)) == {1, 16, 64}
    assert chunk.size == 1


def test_what_is_within_noise_falls_the_same_way_each_time() -> None:
    for others in (0.0048, 0.0052):
        chunk = ChunkSize("auto")
        choose(chunk, {1: others, 16: 0.005, 32: others})
        assert chunk.size == 16


def test_a_short_run_times_nothing_but_the_usual_size() -> None:
    chunk, ran = ChunkSize("auto"), []
    chunk.tune(ran.append, 32, CPU, lambda size: size, steps=10)
    assert chunk.size == 16 and set(ran) == {16}


def test_auto_stays_under_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=40_000_000)
    monkeypatch.setattr("lightning_meta.learner.chunk_size.psutil.virtual_memory", lambda: memory)
    chunk, ran = ChunkSize("auto"), []
    torch.ones(50_000_000).add_(1)  # an earlier peak must not hide what a candidate needs

    def run(size: int) -> None:
        ran.append(size)
        time.sleep(0.001)
        torch.ones(250_000 * size).add_(1)  # 1 MB a task

    chunk.tune(run, 64, CPU, lambda size: size)
    assert set(ran) == {1, 16}  # 64 tasks would take 64 of 40 MB
    assert chunk.size == 16


def test_auto_takes_all_tasks_on_a_gpu() -> None:
    chunk, ran = ChunkSize("auto"), []
    chunk.tune(ran.append, 32, torch.device("cuda"), lambda size: size)
    assert chunk.size == 32
    assert ran == []


@pytest.mark.parametrize(("most", "expected"), [(8, 8), (16, 16), (1, 1)])
def test_auto_leaves_out_what_runs_out_of_memory(most: int, expected: int) -> None:
    def run(size: int) -> None:
        if size > most:
            raise out_of_memory()
        time.sleep(0.01 / size)

    chunk = ChunkSize("auto")
    chunk.tune(run, 64, CPU, lambda size: size)
    assert chunk.size == expected


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_nothing_is_timed_in_deterministic_runs() -> None:
    chunk = ChunkSize("auto")
    assert choose(chunk, {}) == []
    assert chunk.size == 16


def test_a_chunk_is_halved_until_it_fits_and_stays_so() -> None:
    chunk, ran = ChunkSize(16), []

    def run(size: int) -> str:
        ran.append(size)
        if size > 4:
            raise out_of_memory()
        return "done"

    with pytest.warns(UserWarning, match="memory ran out with model.task_chunk (16|8)") as record:
        assert chunk.halve_on_out_of_memory(run, 32) == "done"
    assert len(record) == 2
    assert chunk.halve_on_out_of_memory(run, 32) == "done"
    assert ran == [16, 8, 4, 4]


def test_ranks_choose_together_whatever_an_evaluation_before_did() -> None:
    def evaluate(size: int) -> None:
        if size > 4:
            raise out_of_memory()

    chunk, shared = ChunkSize("auto"), []
    with pytest.warns(UserWarning, match="memory ran out"):
        chunk.halve_on_out_of_memory(evaluate, 32)
    chunk.tune(lambda size: None, 32, CPU, lambda size: shared.append(size) or 8)
    assert len(shared) == 1  # this rank must take part, as one that had memory enough does
    assert chunk.size == 8


def test_memory_for_no_task_and_other_errors_are_not_hidden() -> None:
    def run(size: int) -> None:
        raise out_of_memory()

    with pytest.raises(MetaLearningError, match="does not suffice for a single task"):
        ChunkSize(1).halve_on_out_of_memory(run, 4)

    def mistake(size: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        ChunkSize(4).halve_on_out_of_memory(mistake, 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ChunkSize("auto").tune(mistake, 4, CPU, lambda size: size)
