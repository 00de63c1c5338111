"""Evaluation by one graph of an inner step, which is repeated: where that is possible, and that it is the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_meta.algorithms import (
    ANIL,
    BOIL,
    FOMAML,
    MAML,
    FineTuning,
    LearnedOptimizer,
    MAMLPlusPlus,
    MatchingNetworks,
    PrototypicalNetworks,
    Reptile,
)
from lightning_meta.backbones import LSTM
from lightning_meta.episode import Episode, Predictions
from lightning_meta.inner import SGD, Adam, InnerLoop, LayerRates, LSTMOptimizer, MetaSGD
from lightning_meta.learner import MetaLearner
from lightning_meta.learner import evaluation as module
from lightning_meta.learner.run_length import evaluation_batches_left
from lightning_meta.mapping import Compiled, missing_compiler
from lightning_meta.params import Params
from tests.helpers import glyphs, image_episode, network, trainer

STEPS = 3
LOOP = InnerLoop(SGD(lr=0.1), steps=STEPS, evaluation_steps=STEPS)


def small_network() -> nn.Module:
    """A network for `glyphs` of few operations, which are compiled in seconds."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 7, stride=7), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def assert_repeated(learner: MetaLearner, episode: Episode, compiled: bool) -> None:
    """A repeated step gives what evaluating every task as a whole gives."""
    given = learner.meta_parameters(), episode, learner.evaluation_carry(episode)
    score, step = (Compiled(part) if compiled else part for part in module._parts(learner).values())
    found = learner.evaluation._repeat(score, step, *given)
    for ours, expected in zip(found, learner.evaluation._whole(*given), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert not compiled or len(score._graphs) == 1  # for all steps, and the outputs after the last


class ThirdStepHalved(MAML):
    """A method whose third step is another than the first two."""

    def inner_objective(self, params: Params, task: Episode) -> Any:
        whole = super().inner_objective(params, task)
        return lambda fast, rows, step: whole(fast, rows, step) * (0.5 if step == 2 else 1.0)


class EachTask(MAML):
    """A method with predictions of its own."""

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        return Predictions(*(2 * outputs for outputs in super().predictions(params, task, carry)))


class BestOnSupport(MAML):
    """A method that returns to the weights with the least support loss, which in most tasks are the last ones."""

    def adapt(self, params: Params, task: Episode, *args: Any, **settings: Any) -> Iterator[tuple[Params, Any]]:
        rows, best = torch.arange(len(task.support_x)), (torch.tensor(torch.inf), {})
        for fast, state in super().adapt(params, task, *args, **settings):
            loss = self.inner_loss(fast, task, rows)
            better = loss <= best[0]
            best = (
                torch.minimum(loss, best[0]),
                {name: torch.where(better, weight, best[1].get(name, weight)) for name, weight in fast.items()},
            )
            yield best[1], state


class OwnMoments(Reptile):
    """A method whose tasks each start from moments of their own."""

    carry_per_task = True

    def evaluation_carry(self, episode: Episode) -> Any:
        return pytree.tree_map(
            lambda leaf: torch.stack([leaf + task for task in range(episode.tasks)]), self.carry.tree()
        )


class Faint(nn.Module):
    """Outputs that are small by nature, as of a regression in small units."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> Tensor:
        return 1e-6 * self.network(x)


@pytest.mark.parametrize(
    "learner",
    [
        lambda: MAML(network(), LOOP),
        lambda: FOMAML(network(), replace(LOOP, optimizer=Adam())),
        lambda: Reptile(network(), replace(LOOP, optimizer=Adam(beta1=0.0))),
        lambda: ANIL(network(), LOOP),
        lambda: BOIL(network(), LOOP),
        lambda: FineTuning(network(), LOOP),
        lambda: MAML(network(), replace(LOOP, optimizer=MetaSGD())),
        lambda: MAML(network(), replace(LOOP, optimizer=LSTMOptimizer(units=3))),
        lambda: MAML(network(), LOOP, task_chunk=1),
        lambda: OwnMoments(network(), replace(LOOP, optimizer=Adam(lr=0.1))),
    ],
    ids=["MAML", "FOMAML", "Reptile", "ANIL", "BOIL", "FineTuning", "MetaSGD", "LSTM", "in a loop", "own moments"],
)
def test_a_repeated_step_gives_the_predictions(learner: Any, float64: None) -> None:
    episode, learner = image_episode(steps=STEPS), learner().double()
    learner.eval()
    assert learner.evaluation._steps_are_alike(episode)
    assert_repeated(learner, episode, compiled=type(learner) is Reptile)


@pytest.mark.parametrize(
    "learner",
    [
        lambda: MAMLPlusPlus(network(), LOOP),
        lambda: MAML(network(), replace(LOOP, optimizer=LayerRates(0.1, STEPS))),
        lambda: ThirdStepHalved(network(), LOOP),
        lambda: EachTask(network(), LOOP),
        lambda: BestOnSupport(network(), LOOP),
        lambda: ThirdStepHalved(Faint(), replace(LOOP, optimizer=SGD(lr=1e5))),
        lambda: PrototypicalNetworks(network()),
        lambda: MatchingNetworks(network()),
        lambda: LearnedOptimizer(
            network(), InnerLoop(LSTMOptimizer(units=3), STEPS, evaluation_steps=STEPS), optimization_steps=STEPS
        ),
    ],
    ids=["MAML++", "LayerRates", "third step", "own predictions", "best", "faint", "ProtoNets", "Matching", "Learned"],
)
def test_where_steps_differ_they_are_not_repeated(learner: Any) -> None:
    learner = learner()
    learner.eval()
    assert not learner.evaluation._steps_are_alike(image_episode(steps=STEPS))


class Noise(nn.Module):
    """Draws random numbers in evaluation, too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def test_what_draws_random_numbers_in_evaluation_is_not_repeated() -> None:
    learner = MAML(nn.Sequential(Noise(), network()), LOOP)
    learner.eval()
    assert not learner.evaluation._steps_are_alike(image_episode(steps=STEPS))


class _Long:
    """Makes every evaluation long enough for kernels, which are said to be fast."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lightning_meta.learner.evaluation.evaluation_batches_left", lambda trainer: 1e9)
        monkeypatch.setattr("lightning_meta.learner.fusion.seconds_of", lambda run: 0.0)


@pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())
def test_long_evaluations_take_kernels_with_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, data = MAML(small_network(), LOOP), glyphs(test_tasks=40)
    expected = trainer(tmp_path).test(learner, data, verbose=False)[0]
    assert learner.evaluation.fusion.chosen is False  # forty tasks take no minutes
    _Long(monkeypatch)
    calls = 0
    run = module.Evaluation._step_by_step

    def counted(*args: Any) -> Predictions:
        nonlocal calls
        calls += 1
        return run(*args)

    monkeypatch.setattr(module.Evaluation, "_step_by_step", counted)
    found = trainer(tmp_path).test(learner, data, verbose=False)[0]
    assert learner.evaluation.fusion.chosen
    assert calls == 32 + 8  # the first batch, whose scores are those of the whole tasks, and the second
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_kernels_are_made_for_one_size_of_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without convolutions, tasks are vectorised: forty as twice sixteen and a rest, which is not worth kernels."""
    _Long(monkeypatch)
    monkeypatch.setattr("lightning_meta.mapping.graph.fuse", lambda graph, leaves: graph)  # without Inductor
    monkeypatch.setattr(module.Evaluation, "release", lambda self: None)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    plain, learner = MAML(backbone, LOOP, compile=False), MAML(backbone, LOOP)
    for evaluation in (plain.evaluation, learner.evaluation):
        evaluation._graphs, evaluation._alike, evaluation._fused_kinds = {}, None, None
    expected = trainer(tmp_path).test(plain, glyphs(test_tasks=40), verbose=False)[0]
    found = trainer(tmp_path).test(learner, glyphs(test_tasks=40), verbose=False)[0]
    assert found == pytest.approx(expected, rel=1e-4)
    (graphs,) = learner.evaluation._graphs["scored"]._graphs.values()
    assert len(graphs) == 1


def test_kernels_of_many_operations_need_a_longer_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recurrent network has tens of times the operations of others, and takes as many times as long to compile."""
    monkeypatch.setattr("lightning_meta.learner.evaluation.time.perf_counter", iter(map(float, range(99))).__next__)
    monkeypatch.setattr("lightning_meta.learner.fusion._compiles", lambda fused: True)
    monkeypatch.setattr("lightning_meta.learner.fusion.seconds_of", lambda run: 0.0)
    few = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    for backbone, batches, worth in ((few, 20, False), (few, 500, True), (LSTM(3, hidden=2), 500, False)):
        monkeypatch.setattr("lightning_meta.learner.evaluation.evaluation_batches_left", lambda _, left=batches: left)
        learner = MAML(backbone, replace(LOOP, evaluation_steps=1), task_chunk=1)
        trainer(tmp_path).test(learner, glyphs(test_tasks=2), verbose=False)
        assert learner.evaluation.fusion.chosen is worth


def test_predictions_are_counted_by_their_own_batches(tmp_path: Path) -> None:
    learner, counted = MAML(small_network(), LOOP, compile=False), []
    learner.on_predict_batch_end = lambda *_: counted.append(evaluation_batches_left(learner.trainer))  # type: ignore
    trainer(tmp_path).predict(learner, glyphs(test_tasks=40))
    assert counted == [2, 2]


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # the data module goes on where it was
def test_a_resumed_run_evaluates_as_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Long(monkeypatch)
    monkeypatch.setattr("lightning_meta.learner.fusion._compiles", lambda fused: True)
    used: list[bool] = []
    run = module.Evaluation._run

    def noted(self: Any, episode: Episode, size: int, fused: bool = False) -> Predictions:
        used.append(fused)
        return run(self, episode, size)

    monkeypatch.setattr(module.Evaluation, "_run", noted)
    settings: dict[str, Any] = {"limit_val_batches": 1.0, "val_check_interval": 1, "num_sanity_val_steps": 1}
    data = {"validation_tasks": 64}
    first = MAML(small_network(), LOOP, compile=True)
    whole = trainer(tmp_path, **settings)
    whole.fit(first, glyphs(**data))
    assert used == [False, False, True, True, True]  # sanity check, then the first batch, before anything is known
    whole.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["fused_evaluation"] is True
    used.clear()
    second = MAML(small_network(), LOOP, compile=True)
    trainer(tmp_path, **settings, max_steps=3).fit(second, glyphs(**data), ckpt_path=tmp_path / "last.ckpt")
    assert used[-2:] == [True, True]


def test_training_logs_and_other_shapes_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Long(monkeypatch)
    monkeypatch.setattr("lightning_meta.learner.fusion._compiles", lambda fused: pytest.fail("compiled"))
    learner = MAML(small_network(), LOOP)
    trainer(tmp_path, log_every_n_steps=1).fit(learner, glyphs())
    assert learner.evaluation.fusion.chosen is None


def test_the_number_of_a_step_can_only_be_added_to() -> None:
    step = module.AnyStep()
    assert step + 1 is step
    for use in (
        bool,
        hash,
        int,
        str,
        lambda step: f"rate_{step}",
        lambda step: step == 0,
        lambda step: [1, 2][step],
        lambda step: torch.ones(2)[step],
    ):
        with pytest.raises((TypeError, IndexError)):
            use(step)
