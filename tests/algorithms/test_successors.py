"""ANIL, BOIL and learned inner rates, in float64, against learn2learn, written-out loops and finite differences."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta.algorithms import ANIL, BOIL, FOMAML, MAML
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, InnerLoop, LayerRates, MetaSGD
from lightning_meta.params import Params
from tests.helpers import PATHS, RATE, gradient, image_episode, network, query_loss, tasks_of

pytestmark = pytest.mark.usefixtures("float64")

HEAD = "13"  # of `network`, which is an nn.Sequential
CASES = [(path, steps) for path in PATHS for steps in (1, 5) if (path, steps) != ("compiled", 5)]  # slow to trace


def learn2learn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports of gym and pkg_resources
        return importlib.import_module("learn2learn.algorithms")


def smooth() -> nn.Module:
    """Without kinks, which a finite step may cross."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3))


def loop(model: nn.Module, episode: Episode, outer: Callable[[Params, Episode], Tensor]) -> tuple[Params, Tensor]:
    """The gradient of the mean over tasks of ``outer``, by torch's own autograd, one task after another."""
    weights = dict(model.named_parameters())
    losses = torch.stack([outer(weights, task) for task in tasks_of(episode)])
    grads = torch.autograd.grad(losses.mean(), list(weights.values()))
    return {f"backbone.{name}": grad for name, grad in zip(weights, grads, strict=True)}, losses.detach()


def step(
    model: nn.Module, weights: Params, moved: list[str], task: Episode, rates: Params, order: bool = True
) -> Params:
    """One step of gradient descent on the support set, for some of the weights."""
    loss = functional.cross_entropy(functional_call(model, weights, (task.support_x,)), task.support_y)
    grads = torch.autograd.grad(loss, [weights[name] for name in moved], create_graph=order)
    return weights | {name: weights[name] - rates[name] * grad for name, grad in zip(moved, grads, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "steps"), CASES)
def test_anil_equals_learn2learn(path: str, steps: int) -> None:
    """The loop of learn2learn's own ANIL: features by the body, its MAML on the head alone."""
    torch.manual_seed(1)
    episode = image_episode(steps=steps)
    ours = gradient(ANIL(network(), InnerLoop(SGD(RATE), steps)), episode, **PATHS[path])
    model = network()
    body, head = nn.Sequential(*list(model)[:-1]), learn2learn().MAML(model[-1], lr=RATE)
    losses = []
    for task in tasks_of(episode):
        clone, features = head.clone(), body(task.support_x)
        for _ in range(steps):
            clone.adapt(functional.cross_entropy(clone(features), task.support_y))
        losses.append(functional.cross_entropy(clone(body(task.query_x)), task.query_y))
    torch.stack(losses).mean().backward()
    theirs = {f"backbone.{name}": parameter.grad for name, parameter in model.named_parameters()}
    assert ours.grads.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.losses, torch.stack(losses).detach(), rtol=0, atol=1e-9)


def test_anil_walks_through_features_of_the_whole_support_set() -> None:
    """The mini-batches of inner steps choose among features that were computed together, under one batch norm."""
    torch.manual_seed(2)
    order = torch.stack([torch.randperm(6) for _ in range(3)]).view(3, 3, 2)
    episode = image_episode()._replace(inner_order=order)
    ours = gradient(ANIL(network(), InnerLoop(SGD(RATE), 3, 2)), episode)
    model = network()

    def outer(weights: Params, task: Episode) -> Tensor:
        body = {name: weight for name, weight in weights.items() if not name.startswith(HEAD)}
        features = functional_call(nn.Sequential(*list(model)[:-1]), body, (task.support_x,))
        head, bias = weights[f"{HEAD}.weight"], weights[f"{HEAD}.bias"]
        for rows in task.inner_order:
            loss = functional.cross_entropy(functional.linear(features[rows], head, bias), task.support_y[rows])
            by_head, by_bias = torch.autograd.grad(loss, [head, bias], create_graph=True)
            head, bias = head - RATE * by_head, bias - RATE * by_bias
        return query_loss(model, weights | {f"{HEAD}.weight": head, f"{HEAD}.bias": bias}, task)

    expected, losses = loop(model, episode, outer)
    torch.testing.assert_close(ours.grads, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.losses, losses)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_boil_equals_a_written_out_loop(path: str) -> None:
    torch.manual_seed(3)
    episode = image_episode(steps=2)
    ours = gradient(BOIL(network(), InnerLoop(SGD(RATE), 2)), episode, **PATHS[path])
    model = network()
    moved = [name for name, _ in model.named_parameters() if not name.startswith(HEAD)]

    def outer(weights: Params, task: Episode) -> Tensor:
        for _ in range(2):
            weights = step(model, weights, moved, task, dict.fromkeys(moved, torch.tensor(RATE)))
        return query_loss(model, weights, task)

    expected, losses = loop(model, episode, outer)
    torch.testing.assert_close(ours.grads, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.losses, losses)


@pytest.mark.parametrize(("algorithm", "still"), [(ANIL, "body"), (BOIL, "head")])
def test_half_of_the_network_stands_still_in_predictions(algorithm: type[MAML], still: str) -> None:
    torch.manual_seed(4)
    learner = algorithm(network(), InnerLoop(SGD(RATE), 2))
    task = tasks_of(image_episode(steps=2))[0]
    params = learner.meta_parameters()
    ways = list(learner.adapt(params, task))
    assert len(ways) == 3
    start = learner.backbone.state_dict()
    for fast, _ in ways:
        assert fast.keys() == start.keys()
    for name, weight in start.items():
        stays = name.startswith(HEAD) == (still == "head")
        assert torch.equal(ways[-1][0][name], weight) == stays, name
    outputs = learner.predictions(params, task, {}).query
    for place, (fast, _) in enumerate(ways):
        torch.testing.assert_close(outputs[place], functional_call(network(), fast, (task.query_x,)))


@pytest.mark.slow
@pytest.mark.parametrize(("path", "steps"), CASES)
def test_meta_sgd_equals_learn2learn(path: str, steps: int) -> None:
    """The gradients of all rates included."""
    torch.manual_seed(5)
    episode = image_episode(steps=steps)
    ours = gradient(MAML(network(), InnerLoop(MetaSGD(RATE), steps)), episode, **PATHS[path])
    model = network()
    learner = learn2learn().MetaSGD(model, lr=RATE)
    losses = []
    for task in tasks_of(episode):
        clone = learner.clone()
        for _ in range(steps):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it looks at .grad of tensors that are no leaves
                clone.adapt(functional.cross_entropy(clone(task.support_x), task.support_y))
        losses.append(functional.cross_entropy(clone(task.query_x), task.query_y))
    torch.stack(losses).mean().backward()
    names = [name for name, _ in model.named_parameters()]
    theirs = {f"backbone.{name}": parameter.grad for name, parameter in model.named_parameters()}
    rates = [f"inner_parameters.{name.replace('.', '/')}" for name in names]
    theirs |= {name: rate.grad for name, rate in zip(rates, learner.lrs, strict=True)}
    assert ours.grads.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.losses, torch.stack(losses).detach(), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_rates_by_layer_and_step_equal_finite_differences(path: str) -> None:
    torch.manual_seed(6)
    episode = image_episode(steps=3)
    learner = MAML(smooth(), InnerLoop(LayerRates(RATE, 3), 3, evaluation_steps=3))
    for rates in learner.inner_parameters.values():
        rates.data += 0.2 * torch.randn(3)
    losses, grads, _ = gradient(learner, episode, **PATHS[path])
    for task, loss in zip(tasks_of(episode), losses, strict=True):
        fast = dict(learner.backbone.named_parameters())
        for place in range(3):
            rates = {name: learner.inner_parameters[name.replace(".", "/")][place] for name in fast}
            fast = step(learner.backbone, fast, list(fast), task, rates)
        torch.testing.assert_close(loss, query_loss(learner.backbone, fast, task).detach())
    assert set(learner.inner_parameters) == {"1/weight", "1/bias", "3/weight", "3/bias"}
    for name, rates in learner.inner_parameters.items():
        for place in range(3):

            def loss_at(rate: Tensor) -> Tensor:
                rates.data[place] = rate  # noqa: B023
                return gradient(learner, episode).losses.mean()

            here = rates.data[place].clone()
            slope = (loss_at(here + 1e-5) - loss_at(here - 1e-5)) / 2e-5
            loss_at(here)
            torch.testing.assert_close(grads[f"inner_parameters.{name}"][place], slope, rtol=1e-6, atol=1e-9)


def test_equal_rates_everywhere_are_plain_descent() -> None:
    torch.manual_seed(7)
    episode = image_episode(steps=2)
    plain = gradient(MAML(network(), InnerLoop(SGD(RATE), 2)), episode)
    for rule in (MetaSGD(RATE), LayerRates(RATE, 2)):
        ours = gradient(MAML(network(), InnerLoop(rule, 2, evaluation_steps=2)), episode)
        torch.testing.assert_close(ours.losses, plain.losses)
        for name, grad in plain.grads.items():
            torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_first_order_learns_the_rates_of_meta_sgd(path: str) -> None:
    """With constant inner gradients, the rates still have the derivative of the update."""
    torch.manual_seed(8)
    episode = image_episode(steps=2)
    ours = gradient(FOMAML(network(), InnerLoop(MetaSGD(RATE), 2)), episode, **PATHS[path])
    model = network()
    weights = dict(model.named_parameters())
    rates = {name: torch.full_like(weight, RATE, requires_grad=True) for name, weight in weights.items()}
    losses = []
    for task in tasks_of(episode):
        fast: Params = dict(weights)
        for _ in range(2):
            fast = step(model, fast, list(fast), task, rates, order=False)
        losses.append(query_loss(model, fast, task))
    torch.stack(losses).mean().backward()
    for name, weight in weights.items():
        torch.testing.assert_close(ours.grads[f"backbone.{name}"], weight.grad, rtol=0, atol=1e-12)
        rate = ours.grads[f"inner_parameters.{name.replace('.', '/')}"]
        torch.testing.assert_close(rate, rates[name].grad, rtol=0, atol=1e-12)
        assert name.endswith("bias") or rate.abs().max() > 1e-9, name  # a bias before a batch norm moves nothing
