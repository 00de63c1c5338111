"""The contenders of the speed benchmark: that they compute what we compute, and that the table says where not."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lightning_meta.episode import Episode

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
WAYS, TASKS = 5, 2
SETTINGS = [("MAML", "5w1s", 1), ("MAML", "5w1s", 3), ("FOMAML", "5w2s", 2), ("Reptile", "o15", 2)]
JAX = [pytest.param(name, marks=pytest.mark.slow) for name in ("JAX, vmap of convolutions", "JAX, scan of products")]
RIGHT = ["plain torch loop", "torch.func.vmap", "learn2learn, computation", "TorchOpt, loop",
         "parallel-metalearn, its norm", *JAX]  # fmt: skip
TORCH_NORM = ["torch.func.vmap, torch's norm", "TorchOpt, vmap, torch's norm", "parallel-metalearn, torch's norm"]


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module


def problem_of(speed: Any, algorithm: str, task: str, steps: int) -> Any:
    """Noise in float64."""
    torch.manual_seed(0)
    case = speed("cases").Case(algorithm, task, steps, "omniglot", TASKS)
    learner = speed("cases").learner_of(case)
    support, query = WAYS * case.shots, WAYS * (1 if task == "o15" else case.shots)
    episode = Episode(
        torch.rand(TASKS, support, 1, 28, 28), torch.arange(WAYS).repeat_interleave(support // WAYS).expand(TASKS, -1),
        torch.rand(TASKS, query, 1, 28, 28), torch.arange(WAYS).repeat_interleave(query // WAYS).expand(TASKS, -1),
        torch.stack([torch.stack([torch.randperm(support) for _ in range(steps)]) for _ in range(TASKS)]),
        torch.arange(TASKS), torch.zeros(TASKS, WAYS, dtype=torch.int64),
    )  # fmt: skip
    size = learner.inner.batch_size
    return speed("contenders").exactly(
        speed("contenders").Problem(case, learner, episode._replace(inner_order=episode.inner_order[:, :, :size]))
    )


def error(contenders: ModuleType, name: str, problem: Any, steps: int = 1) -> float:
    try:
        contender = contenders.build(name, problem)
    except contenders.UnavailableError as reason:
        pytest.skip(str(reason))
    for _ in range(steps):
        contender.step()
    return contenders.relative_error(problem, contender.gradient(), contenders.our_gradient(problem, contender.serial))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", RIGHT)
def test_gradients_are_ours(speed: Any, name: str, setting: tuple[str, str, int]) -> None:
    contenders = speed("contenders")
    limit = 1e-7 if "parallel-metalearn" in name else 1e-11  # it keeps its inner rate in float32
    assert error(contenders, name, problem_of(speed, *setting)) < limit


@pytest.mark.parametrize("name", TORCH_NORM)
def test_torch_norm_under_vmap_is_found_wrong_in_second_order_alone(speed: Any, name: str) -> None:
    contenders = speed("contenders")
    assert error(contenders, name, problem_of(speed, "FOMAML", "5w1s", 2)) < contenders.TOLERANCE
    assert error(contenders, name, problem_of(speed, "MAML", "5w1s", 2)) > 100 * contenders.TOLERANCE


@pytest.mark.parametrize("name", ["plain torch loop", "learn2learn, computation", JAX[1]])
def test_steps_move_the_weights(speed: Any, name: str) -> None:
    """What is timed is a training, not the same gradient again."""
    assert error(speed("contenders"), name, problem_of(speed, "MAML", "5w1s", 1), steps=2) > 1e-3


def test_what_a_library_cannot_do_is_said(speed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contenders, problem = speed("contenders"), problem_of(speed, "Reptile", "o15", 2)
    with pytest.raises(contenders.UnavailableError, match="in the norm alone"):
        contenders.build("torch.func.vmap, torch's norm", problem)
    monkeypatch.setitem(contenders.CONTENDERS, "another", ("of_nobody", "loop"))
    with pytest.raises(contenders.UnavailableError, match=r"not installed: contenders\.of_nobody"):
        contenders.build("another", problem)


def test_operations_of_a_first_order_gradient(speed: Any) -> None:
    """Two passes through 5 images: forward, weight gradients, and input gradients but the images' own."""
    problem = problem_of(speed, "FOMAML", "5w1s", 1)
    layers = [2 * WAYS * 64 * channels * 9 * size**2 for channels, size in ((1, 14), (64, 7), (64, 4), (64, 2))]
    head = 2 * WAYS * 64 * WAYS
    expected = TASKS * 2 * (3 * (sum(layers) + head) - layers[0])
    assert speed("floor").operations(problem.learner, problem.episode) == expected


def test_rows_of_the_table(speed: Any) -> None:
    throughput, alternate, turn = speed("throughput"), speed("alternate"), speed("instruments").Turn
    case = speed("cases").QUICK[0]
    turns = alternate.Alternate(case, 3, 0.1, None, {(case, "fast"): 2e-3, (case, "slow"): 1e-12})
    turns.turns[alternate.OURS] = [turn(0.1, 0.1), turn(0.2, 0.1), turn(0.1, 0.1)]
    turns.turns["fast"] = [turn(0.05, 0.04), turn(0.05, 0.05), turn(0.05, 0.06)]
    turns.turns["slow"] = [turn(3.0, 2.0)]  # gave up its other turns
    turns.remarks["absent"] = "not installed: absent"
    fast, slow, absent = (
        throughput.contender_row(turns, name, alternate.OURS, 0.025) for name in ("fast", "slow", "absent")
    )
    assert (fast["wall_ms"], fast["cpu_ms"], fast["times_ours"], fast["times_ours_spread"]) == (
        50.0, 50.0, 0.5, "0.25 to 0.50",
    )  # fmt: skip
    assert fast["cpu_times_ours"] == 0.5
    assert (fast["x_floor"], fast["error_float64"], fast["remark"]) == (2.0, "2.0e-03", "WRONG gradient")
    assert (slow["turns"], slow["times_ours"], slow["remark"]) == (1, 30.0, "right")
    assert absent == {"contender": "absent", "remark": "not installed: absent"}
