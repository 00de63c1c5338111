"""A learner adapted to labelled examples predicts what its evaluation does."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_meta import algorithms
from lightning_meta.backbones import MLP
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, Adam, InnerLoop, LSTMOptimizer
from lightning_meta.learner import MetaLearner
from tests.helpers import image_episode, network, tasks_of

CLASSIFIERS = [
    name for name in algorithms.__all__ if name not in ("LearnedOptimizer", "PolicyGradientMAML", "TRPOMAML")
]
LOOP = InnerLoop(SGD(lr=0.1), steps=2, evaluation_steps=2)


def classifier(name: str) -> MetaLearner:
    """A learner of this method on a small network, in float64."""
    kind: Any = getattr(algorithms, name)
    if name in ("PrototypicalNetworks", "MatchingNetworks", "NearestNeighbour"):
        learner = kind(network())
    elif name == "GradientCombination":
        learner = kind(network(), InnerLoop(SGD(lr=0.1), steps=1, evaluation_steps=2))
    else:
        learner = kind(network(), LOOP)
    result: MetaLearner = learner.double()
    return result


def drawn_task(ways: int = 3) -> Episode:
    """A task of random images in float64, without the task axis."""
    torch.manual_seed(3)
    (task,) = tasks_of(image_episode(tasks=1, ways=ways, steps=2))
    return task._replace(support_x=task.support_x.double(), query_x=task.query_x.double())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_outputs_are_those_of_the_evaluation(name: str) -> None:
    learner, task = classifier(name), drawn_task()
    before = copy.deepcopy(learner.state_dict())
    expected = learner.predictions(learner.meta_parameters(), task, learner.carry.tree())

    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    names = [("x", "y", "z")[label] for label in task.support_y.tolist()]
    alone = learner.adapt_to(task.support_x, task.support_y, every_step=True)
    mixed = learner.adapt_to(task.support_x[shuffled], [names[row] for row in shuffled])
    together = learner.adapt_to(task.support_x, task.support_y, together=True)
    assert (alone.classes, mixed.classes, alone.head) == ([0, 1, 2], ["x", "y", "z"], "own")
    torch.testing.assert_close(alone(task.query_x), expected.query_nontransductive[-1])
    torch.testing.assert_close(alone.steps(task.query_x), expected.query_nontransductive)
    torch.testing.assert_close(alone.support_steps(), expected.support)
    torch.testing.assert_close(together(task.query_x), expected.query[-1])
    # Rows in another order are sorted by class again; a sum over rows in another order differs by rounding.
    torch.testing.assert_close(mixed(task.query_x), alone(task.query_x))
    torch.testing.assert_close(dict(learner.state_dict()), dict(before), rtol=0, atol=0)


def test_the_weights_are_the_modules_own() -> None:
    learner, task = classifier("MAML"), drawn_task()
    adapted = learner.adapt_to(task.support_x, task.support_y, together=True)
    torch.testing.assert_close(adapted.backbone(task.query_x), adapted(task.query_x))
    loss = adapted(task.query_x).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in adapted.parameters())
    assert adapted.state_dict().keys() == {f"backbone.{name}" for name in learner.backbone.state_dict()} | {"support_x"}


@pytest.mark.parametrize("name", ["MAML", "PrototypicalNetworks"])
def test_an_adapted_learner_moves_as_a_module_does(name: str) -> None:
    learner, task = classifier(name), drawn_task()
    adapted = learner.adapt_to(task.support_x, task.support_y, every_step=True)
    expected, every, support = adapted(task.query_x), adapted.steps(task.query_x), adapted.support_steps()
    copied = copy.deepcopy(adapted).float()
    single = task.query_x.float()
    for found, double in (
        (copied(single), expected), (copied.steps(single), every), (copied.support_steps(), support),
    ):  # fmt: skip
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), double, rtol=1e-3, atol=1e-3)


def test_mini_batches_are_dealt_in_turn() -> None:
    """Two rows a step: the first shots of classes 0 and 1, the first of 2 and the second of 0, and so on."""
    learner, task = (
        algorithms.MAML(network(), InnerLoop(SGD(lr=0.1), evaluation_steps=3, evaluation_batch_size=2)),
        None,
    )
    task = drawn_task()
    learner = learner.double()
    order = torch.tensor([[0, 2], [4, 1], [3, 5]])  # rows are sorted by class, two of each
    expected = learner.predictions(learner.meta_parameters(), task._replace(inner_order=order), learner.carry.tree())
    adapted = learner.adapt_to(task.support_x, task.support_y)
    torch.testing.assert_close(adapted(task.query_x), expected.query_nontransductive[-1])


def test_carried_moments_are_where_reptile_starts_from() -> None:
    task = drawn_task()
    learner = algorithms.Reptile(network(), InnerLoop(Adam(lr=0.01, beta1=0.0), steps=2, evaluation_steps=2)).double()
    plain = learner.adapt_to(task.support_x, task.support_y)(task.query_x)
    learner.carry.assign(
        learner.inner.optimizer.init(learner.adapted_params(learner.meta_parameters()))._replace(
            steps=torch.tensor(7.0, dtype=torch.float64),
            nu={name: torch.full_like(value, 3.0) for name, value in learner.backbone.state_dict().items()},
        )
    )
    expected = learner.predictions(learner.meta_parameters(), task, learner.carry.tree())
    carried = learner.adapt_to(task.support_x, task.support_y)(task.query_x)
    torch.testing.assert_close(carried, expected.query_nontransductive[-1])
    assert not torch.allclose(carried, plain)


@pytest.mark.parametrize(("rows", "batch"), [(6, None), (4, None), (6, 2), (4, 3)])
def test_a_sum_over_rows_keeps_the_size_that_it_was_trained_with(rows: int, batch: int | None) -> None:
    loops = {
        reduction: InnerLoop(SGD(lr=rate), evaluation_steps=2, evaluation_batch_size=batch, reduction=reduction)
        for reduction, rate in (("sum", 0.1), ("mean", 0.1 * min(12, batch or 12)))
    }
    task = drawn_task()
    outputs = []
    for loop in loops.values():
        learner = algorithms.MAML(network(), loop).double()
        learner.trained_on = {"rows": 12}
        outputs.append(learner.adapt_to(task.support_x[:rows], task.support_y[:rows])(task.query_x))
    torch.testing.assert_close(*outputs)


def test_fewer_classes_than_outputs() -> None:
    task = drawn_task()
    adapted = classifier("MAML").adapt_to(task.support_x[:4], ["b", "b", "a", "a"])
    assert adapted(task.query_x).shape == (6, 2)
    assert adapted.classes == ["a", "b"]


def test_more_classes_than_outputs_are_told_apart_by_their_means() -> None:
    learner, task = classifier("MAML"), drawn_task(ways=5)
    adapted = learner.adapt_to(task.support_x, task.support_y, together=True)
    assert adapted.head == "prototypes"
    body = nn.Sequential(*list(learner.backbone)[:-1])
    support, rows = body(task.support_x), body(task.query_x)
    means = torch.stack([support[task.support_y == label].mean(0) for label in range(5)])
    expected = -(rows[:, None] - means).square().sum(-1) + rows.square().sum(-1, keepdim=True)
    torch.testing.assert_close(adapted(task.query_x), expected)
    torch.testing.assert_close(adapted.backbone(task.query_x), expected)


@pytest.mark.parametrize("together", [False, True])
def test_no_rows_and_other_precision(together: bool) -> None:
    task = drawn_task()
    adapted = classifier("MAML").adapt_to(task.support_x, task.support_y, together=together, every_step=True).float()
    assert adapted(task.query_x[:0]).shape == (0, 3)
    torch.testing.assert_close(adapted.steps(task.query_x)[-1], adapted(task.query_x))


@pytest.mark.parametrize("name", ["PrototypicalNetworks", "MatchingNetworks", "NearestNeighbour"])
def test_methods_that_compare_take_any_number_of_classes(name: str) -> None:
    """Seven classes with one, two, three examples: as the same method with a head of seven computes."""
    task = drawn_task(ways=5)
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 3, 4, 5, 6])
    wider = classifier(name)
    adapted = wider.adapt_to(task.support_x, labels, together=True)
    features, rows = (nn.Sequential(*list(wider.backbone)[:-1])(x) for x in (task.support_x, task.query_x))
    membership = functional.one_hot(labels).T.double()
    assert adapted.head == "own"
    torch.testing.assert_close(adapted(task.query_x), wider.compare(features, membership, rows))


def test_regression() -> None:
    torch.manual_seed(0)
    learner = algorithms.MAML(MLP(1, inputs=1, hidden=[8]), LOOP, loss=functional.mse_loss).double()
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    adapted = learner.adapt_to(x, x.sin(), every_step=True)
    weights = dict(learner.backbone.named_parameters())
    for _ in range(2):
        loss = functional.mse_loss(torch.func.functional_call(learner.backbone, weights, x), x.sin())
        grads = torch.autograd.grad(loss, list(weights.values()))
        weights = {name: w - 0.1 * g for (name, w), g in zip(weights.items(), grads, strict=True)}
    torch.testing.assert_close(adapted(x), torch.func.functional_call(learner.backbone, weights, x))
    assert adapted.classes is None
    assert adapted.steps(x).shape == (3, 6, 1)


def test_a_learned_optimizer_trains_a_new_network() -> None:
    task = drawn_task()
    loop = InnerLoop(LSTMOptimizer(), steps=2, evaluation_steps=3)
    learner = algorithms.LearnedOptimizer(network(), loop, optimization_steps=2).double()
    outputs = [learner.adapt_to(task.support_x, task.support_y, together=True)(task.query_x) for _ in range(2)]
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "6 examples and 2 labels"),
        ({"x": torch.empty(0, 1, 8, 8), "labels": []}, "at least one example"),
        ({"x": torch.zeros(6, 2, 8, 8)}, r"cannot take inputs of shape \(6, 2, 8, 8\)"),
        ({"x": torch.full((6, 1, 8, 8), torch.nan)}, "not finite"),
        ({"steps": -1}, "steps is -1, expected 0 or more"),
        ({"labels": torch.zeros(6, 1)}, r"cross_entropy, which does not go with real targets of shape \(6, 1\)"),
        ({"lr": 1e200}, "diverged"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], message: str) -> None:
    task = drawn_task()
    learner = algorithms.MAML(network(), InnerLoop(SGD(lr=change.get("lr", 0.1)), evaluation_steps=9)).double()
    with pytest.raises(MetaLearningError, match=message):
        learner.adapt_to(
            change.get("x", task.support_x), change.get("labels", task.support_y), steps=change.get("steps")
        )


def test_classes_are_no_targets_of_a_regression() -> None:
    learner = algorithms.MAML(MLP(1, inputs=1), LOOP, loss=functional.mse_loss)
    with pytest.raises(MetaLearningError, match="mse_loss, which does not go with classes"):
        learner.adapt_to(torch.zeros(4, 1), [0, 0, 0, 1])
    with pytest.raises(MetaLearningError, match=r"real targets of shape \(4, 2\)"):
        learner.adapt_to(torch.zeros(4, 1), torch.zeros(4, 2))


def test_more_steps_than_something_is_learned_for() -> None:
    task = drawn_task()
    with pytest.raises(MetaLearningError, match="steps is 9, but the learner has rates or norms for 2"):
        classifier("MAMLPlusPlus").adapt_to(task.support_x, task.support_y, steps=9)


def test_policies_learn_from_no_examples() -> None:
    policy: Any = algorithms.PolicyGradientMAML.adapt_to
    with pytest.raises(MetaLearningError, match="learns from trajectories"):
        policy(object.__new__(algorithms.PolicyGradientMAML), torch.zeros(1), torch.zeros(1))


class Frozen(nn.Module):
    """A body that is frozen and tied to itself under a second name, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 8).requires_grad_(False)
        self.again = self.body
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(x.flatten(1)).relu())


def test_frozen_and_shared_layers_stay() -> None:
    torch.manual_seed(0)
    learner, task = algorithms.MAML(Frozen(), LOOP).double(), drawn_task()
    adapted = learner.adapt_to(task.support_x, task.support_y)
    expected = learner.predictions(learner.meta_parameters(), task, learner.carry.tree())
    torch.testing.assert_close(adapted(task.query_x), expected.query_nontransductive[-1])
    torch.testing.assert_close(adapted.backbone.body.weight, learner.backbone.body.weight)
    assert adapted.backbone.again is adapted.backbone.body
