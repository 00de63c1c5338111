"""Long adaptations are scored after some of their inner steps: which, that nothing else changes, and what is saved."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_meta import results_file, task_values
from lightning_meta.algorithms import MAML, LearnedOptimizer, MAMLPlusPlus
from lightning_meta.callbacks import Results
from lightning_meta.episode import Episode, Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop, LSTMOptimizer, scored_steps
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.evaluation import _parts
from lightning_meta.params import Params
from tests.helpers import glyphs, image_episode, network, tasks_of, trainer

STEPS = 25
SCORED = [*range(11), 20, 25]
LOOP = InnerLoop(SGD(lr=0.05), steps=2, evaluation_steps=STEPS)


class OwnPredictions(MAML):
    """A method that predicts by itself, after every step."""

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        return Predictions(*(2 * outputs for outputs in super().predictions(params, task, carry)))


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 11, 20, 50, 101])
def test_the_first_ten_every_tenth_and_the_last(steps: int) -> None:
    found = scored_steps(steps)
    assert found == sorted({*range(min(steps, 10) + 1), *range(0, steps + 1, 10), steps})


@pytest.mark.parametrize("method", [MAML, OwnPredictions])
@pytest.mark.parametrize("chunk", [1, 2])
def test_outputs_are_those_after_these_steps(method: type[MAML], chunk: int, float64: None) -> None:
    learner, episode = method(network(), LOOP, task_chunk=chunk, compile=False).double(), image_episode(steps=STEPS)
    found = learner.all_predictions(episode)
    for number, task in enumerate(tasks_of(episode)):
        every = learner.eval().predictions(learner.meta_parameters(), task, {})
        for ours, expected in zip(found, every, strict=True):
            assert len(expected) == STEPS + 1
            torch.testing.assert_close(ours[number], expected[SCORED], rtol=1e-10, atol=1e-10)


def test_no_others_are_computed(monkeypatch: pytest.MonkeyPatch, float64: None) -> None:
    """Neither for whole tasks nor by a step that is repeated, which gives the same."""
    learner, calls = MAML(network(), LOOP, task_chunk=1, compile=False).double(), 0
    one = next(image_episode(steps=STEPS).chunks(1))
    predictions_at = MetaLearner.predictions_at

    def counted(self: MetaLearner, weights: Params, task: Episode) -> Predictions:
        nonlocal calls
        calls += 1
        return predictions_at(self, weights, task)

    monkeypatch.setattr(MetaLearner, "predictions_at", counted)
    whole = learner.all_predictions(one)
    assert calls == len(SCORED)
    score, step = _parts(learner).values()
    repeated = learner.evaluation._repeat(score, step, learner.meta_parameters(), one, {})
    assert calls == 2 * len(SCORED)
    for ours, expected in zip(repeated, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_method_whose_steps_differ_and_a_learned_optimizer() -> None:
    plus = MAMLPlusPlus(network(), InnerLoop(SGD(0.1), steps=12, evaluation_steps=12), compile=False)
    assert plus.all_predictions(image_episode(steps=12)).query.shape[1] == 12
    rule = InnerLoop(LSTMOptimizer(units=3), steps=3, evaluation_steps=12)
    learned = LearnedOptimizer(network(), rule, optimization_steps=3, compile=False)
    assert learned.all_predictions(image_episode(steps=12)).query.shape[1] == 13  # all of the curve


@pytest.mark.parametrize("scored", [[], [0], [1, 3], [0, 1], [0, 3, 1], [0, 1, 1, 3], [0, 3, 4]])
def test_a_choice_without_the_ends_is_refused(scored: list[int]) -> None:
    """Headline figures are the last scored, and those of training go by the names of its ends."""

    class Own(MAML):
        @staticmethod
        def scored_steps(steps: int) -> list[int]:
            return scored if steps == 3 else [0, steps]

    for steps, evaluation_steps in ((3, 5), (5, 3)):
        with pytest.raises(MetaLearningError, match=r"scored_steps\(3\) of Own gives .* from 0 to 3: add what is miss"):
            Own(network(), InnerLoop(steps=steps, evaluation_steps=evaluation_steps))
    assert Own(network(), InnerLoop(steps=1, evaluation_steps=5)).scores.steps == [0, 5]


@pytest.mark.parametrize(("steps", "kinds"), [(3, ["scored"]), (STEPS, ["scored", "unscored"])])
def test_kernels_are_worth_the_operations_of_the_kinds_of_steps_that_are_taken(steps: int, kinds: list[str]) -> None:
    learner = MAML(network(), InnerLoop(evaluation_steps=steps), task_chunk=1, compile=False)
    episode = image_episode(steps=steps)
    assert learner.evaluation._steps_are_alike(episode)
    counts = learner.evaluation._operations
    assert sorted(counts) == kinds
    assert counts["scored"] > counts.get("unscored", 20) > 10


def test_training_is_logged_before_and_after_its_steps() -> None:
    """Of eleven steps and more the last place is not the last step."""
    episode = image_episode(steps=12)
    learner = MAML(network(), LOOP, compile=False)
    predictions = learner.all_predictions(episode)
    logged = learner.scores.of_training(learner.loss, predictions, episode)
    for step, place in ((0, 0), (12, -1)):
        outputs = predictions.query[:, place].flatten(0, 1)
        expected = learner.loss(outputs, episode.query_y.flatten())
        torch.testing.assert_close(logged[f"train/query_loss/step_{step}"], expected)
    assert logged["train/query_loss/step_0"] != logged["train/query_loss/step_12"]
    assert {name.split("/")[2].removesuffix("_nontransductive") for name in logged} == {"step_0", "step_12"}


def test_names_and_files_say_which(tmp_path: Path) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    learner = MAML(backbone, LOOP, compile=False)
    run = trainer(tmp_path, callbacks=[Results()], max_steps=2, log_every_n_steps=1)
    run.fit(learner, glyphs(test_tasks=4))
    assert {name for name in run.logged_metrics if name.startswith("train/query_loss") and "non" not in name} == {
        "train/query_loss/step_0", "train/query_loss/step_2",
    }  # fmt: skip
    (logged,) = run.test(learner, glyphs(test_tasks=4), verbose=False)
    assert {name for name in logged if name.startswith("test/query_accuracy/") and "non" not in name} == {
        f"test/query_accuracy/step_{step}" for step in SCORED
    }
    assert logged["test_accuracy"] == logged[f"test/query_accuracy/step_{STEPS}"]
    folder = next(tmp_path.rglob("results.json")).parent
    (entry,) = results_file.read(folder / "results.json")
    assert entry.inner_steps == STEPS
    assert {tuple(metric.steps) for metric in entry.metrics.values()} == {tuple(SCORED)}
    with (folder / "results.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["metric"] == "query_loss"] == SCORED
    (values,) = task_values.read(folder / "tasks.json")
    assert values.steps == SCORED
    mean = sum(values.after(STEPS, "query_accuracy")) / 4
    assert mean == pytest.approx(entry.metrics["query_accuracy"].mean[-1], abs=1e-5)
    assert values.after(11, "query_accuracy") == []
