"""Meta-gradients in float64 against learn2learn, finite differences and written-out loops."""

import copy
import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, MAML, Reptile
from lightning_meta.backbones import BatchNorm
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, Adam, InnerLoop, InnerOptimizer
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, map_params
from tests.helpers import PATHS, RATE, gradient, image_episode, network, tasks_of

pytestmark = pytest.mark.usefixtures("float64")

EPSILON = 1e-3  # less would blow up the rounding noise of a bias before a batch norm, which differs among processors

LEARN2LEARN = [(path, steps) for path in PATHS if path != "compiled" for steps in (1, 5)] + [("compiled", 2)]
CHUNKS = {"compiled in chunks": {"chunk": 2, "compiled": True}}  # of three tasks: a chunk of two, and a single one
SMOOTH = [(path, steps) for path in PATHS for steps in (1, 5) if (path, steps) != ("compiled", 1)]


def learn2learn_gradient(first_order: bool, episode: Episode, steps: int) -> tuple[Params, Tensor]:
    """The loop of learn2learn's own examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports of gym and pkg_resources
        algorithms = importlib.import_module("learn2learn.algorithms")
    model = network()
    learner = algorithms.MAML(model, lr=RATE, first_order=first_order)
    total = torch.zeros(())
    for support_x, support_y, query_x, query_y, *_ in zip(*episode, strict=True):
        clone = learner.clone()
        for _ in range(steps):
            clone.adapt(functional.cross_entropy(clone(support_x), support_y))
        total = total + functional.cross_entropy(clone(query_x), query_y) / episode.tasks
    total.backward()
    return {f"backbone.{name}": parameter.grad for name, parameter in model.named_parameters()}, total.detach()


@pytest.mark.slow
@pytest.mark.parametrize(("path", "steps"), LEARN2LEARN)
@pytest.mark.parametrize("algorithm", [MAML, FOMAML])
def test_equals_learn2learn(algorithm: type[MetaLearner], path: str, steps: int) -> None:
    torch.manual_seed(1)
    episode = image_episode(steps=steps)
    ours = gradient(algorithm(network(), InnerLoop(SGD(RATE), steps)), episode, **PATHS[path])
    theirs, loss = learn2learn_gradient(algorithm is FOMAML, episode, steps)
    assert ours.grads.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.losses.mean(), loss, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("path", "steps"), [*SMOOTH, ("compiled in chunks", 1)])
def test_maml_equals_finite_differences(path: str, steps: int) -> None:
    torch.manual_seed(2)
    episode = image_episode(steps=steps)
    # ReLU has kinks that a finite step may cross; a smooth network has none.
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    learner = MAML(backbone, InnerLoop(SGD(RATE), steps))
    grads = gradient(learner, episode, **(PATHS | CHUNKS)[path]).grads
    params = learner.meta_parameters()
    for _ in range(3):
        direction = map_params(torch.randn_like, params)
        step = 1e-5

        def loss_at(distance: float) -> Tensor:
            moved = map_params(lambda p, d: p + distance * d, params, direction)  # noqa: B023
            losses = [learner.outer_loss(moved, task, {}, torch.zeros(()))[0] for task in tasks_of(episode)]
            return torch.stack(losses).mean()

        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        ours = sum((grads[name] * direction[name]).sum() for name in grads)
        torch.testing.assert_close(ours, slope, rtol=1e-6, atol=1e-9)


def reptile_loop(backbone: nn.Module, episode: Episode, optimizer: str, moments: dict[str, Any] | None) -> Any:
    """Mean of phi - W over tasks that run one after another with torch's own optimizers; also the moments."""
    differences = [torch.zeros_like(parameter) for parameter in backbone.parameters()]
    states = []
    for support_x, support_y, _, _, order, *_ in zip(*episode, strict=True):
        network = copy.deepcopy(backbone)
        inner = torch.optim.SGD(network.parameters(), lr=0.1)
        if optimizer == "adam":
            inner = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.0, 0.999), eps=EPSILON)
            if moments is not None:
                inner.load_state_dict(copy.deepcopy(moments))
        for rows in order:
            inner.zero_grad()
            functional.cross_entropy(network(support_x[rows]), support_y[rows]).backward()
            inner.step()
        states.append(inner.state_dict())
        for difference, phi, adapted in zip(differences, backbone.parameters(), network.parameters(), strict=True):
            difference += (phi - adapted).detach() / episode.tasks
    return differences, states


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_reptile_equals_a_plain_loop(rule: str, path: str) -> None:
    torch.manual_seed(3)
    episode = image_episode()._replace(inner_order=torch.stack([torch.randperm(6)[:4] for _ in range(9)]).view(3, 3, 4))
    optimizer: InnerOptimizer = SGD(0.1) if rule == "sgd" else Adam(0.01, beta1=0.0, epsilon=EPSILON)
    learner = Reptile(network(), InnerLoop(optimizer, 3, 4))
    moments = None
    for _ in range(2):  # the second time with carried moments
        result = gradient(learner, episode, **PATHS[path])
        differences, states = reptile_loop(learner.backbone, episode, rule, moments)
        for ours, difference in zip(result.grads.values(), differences, strict=True):
            torch.testing.assert_close(ours, difference, rtol=0, atol=1e-9)
        if rule == "adam":
            second = [
                torch.stack([state["state"][k]["exp_avg_sq"] for state in states]).mean(0)
                for k in range(len(differences))
            ]
            for ours, mean in zip(result.carry.nu.values(), second, strict=True):
                torch.testing.assert_close(ours, mean, rtol=1e-9, atol=1e-15)
            moments = states[0]
            for k, mean in enumerate(second):
                moments["state"][k]["exp_avg_sq"] = mean
        learner.carry.assign(result.carry)


def test_serial_reptile_hands_the_moments_on() -> None:
    torch.manual_seed(4)
    episode = image_episode()
    learner = Reptile(network(), InnerLoop(Adam(0.01, beta1=0.0, epsilon=EPSILON), 1), serial=True)
    result = gradient(learner, episode, serial=True)
    moments, differences = None, []
    for task in range(3):
        one = Episode(*(tensor[task : task + 1] for tensor in episode))
        difference, states = reptile_loop(learner.backbone, one, "adam", moments)
        differences.append(difference)
        moments = states[0]
    for ours, *theirs in zip(result.grads.values(), *differences, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs).mean(0), rtol=0, atol=1e-9)
    assert result.carry.steps == 3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("algorithm", [MAML, FOMAML, Reptile])
def test_chunks_equal_one_batch(algorithm: type[MetaLearner], reduction: str) -> None:
    torch.manual_seed(5)
    episode = image_episode(tasks=5)
    learner = algorithm(network(), InnerLoop(Adam(0.01, beta1=0.0, epsilon=EPSILON), 1))
    whole = gradient(learner, episode, None, reduction=reduction)
    for chunk in (1, 2, 3):
        cut = gradient(learner, episode, chunk, reduction=reduction)
        torch.testing.assert_close(cut, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("algorithm", [MAML, FOMAML])
def test_reductions_are_what_they_say(algorithm: type[MetaLearner]) -> None:
    torch.manual_seed(6)
    episode = image_episode(tasks=4)
    mean = gradient(algorithm(network(), InnerLoop(SGD(RATE / 6), 1, reduction="sum")), episode, reduction="mean")
    total = gradient(algorithm(network(), InnerLoop(SGD(RATE), 1)), episode, reduction="sum")
    for name, grad in total.grads.items():  # 6 support rows, 4 tasks
        torch.testing.assert_close(mean.grads[name] * 4, grad, rtol=1e-9, atol=1e-12)


class LearnedRates(InnerOptimizer):
    """Rates of their own for every entry, meta-learned (Li et al., Meta-SGD, arXiv 1707.09835)."""

    def learned(self, fast: Params) -> Params:
        return map_params(lambda weight: torch.full_like(weight, RATE), fast)

    def init(self, fast: Params) -> dict[str, Any]:
        return {}

    def update(self, grads: Params, state: Any, fast: Params, meta: Params, step: int) -> tuple[Params, Any]:
        return map_params(lambda w, g, rate: w - rate * g, fast, grads, meta), state


def test_an_inner_rule_learns_its_own_parameters() -> None:
    torch.manual_seed(7)
    episode = image_episode()
    learner = MAML(network(), InnerLoop(LearnedRates(), 1))
    ours = gradient(learner, episode)
    plain = gradient(MAML(network(), InnerLoop(SGD(RATE), 1)), episode)
    for name, grad in plain.grads.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-12)
    rate_grads = {name: grad for name, grad in ours.grads.items() if name.startswith("inner_parameters.")}
    assert len(rate_grads) == len(plain.grads)

    def loss_at(rate: float) -> Tensor:
        return gradient(MAML(network(), InnerLoop(SGD(rate), 1)), episode).losses.mean()

    slope = (loss_at(RATE + 1e-6) - loss_at(RATE - 1e-6)) / 2e-6
    torch.testing.assert_close(sum(grad.sum() for grad in rate_grads.values()), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("algorithm", [MAML, FOMAML])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_gradients_survive_half_precision(algorithm: type[MetaLearner], dtype: torch.dtype) -> None:
    """Without the scale inside, all gradients of this loss are zero in float16."""

    def small_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return 1e-7 * functional.cross_entropy(outputs, targets, reduction=reduction)

    torch.manual_seed(9)
    episode = image_episode()
    # Without ReLU, whose kinks make gradients jump with the rounding of what comes in.
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)).float()
    learner = algorithm(backbone, InnerLoop(SGD(RATE * 1e7), 1), loss=small_loss)
    episode = Episode(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in episode))
    exact = gradient(learner, episode)
    with torch.autocast("cpu", dtype):
        half = gradient(learner, episode)
    assert all(grad.dtype == torch.float32 for grad in half.grads.values())
    names = [name for name in exact.grads if name != "backbone.0.bias"]  # before a norm: zero but for rounding
    error = sum((half.grads[name] - exact.grads[name]).square().sum() for name in names)
    size = sum(exact.grads[name].square().sum() for name in names)
    assert error.sqrt() < 0.05 * size.sqrt()


def test_first_order_memory_is_flat_in_inner_steps() -> None:
    """The straight-through weights hang on nothing but the meta-parameters."""
    torch.manual_seed(8)
    learner = FOMAML(network(), InnerLoop(SGD(RATE), 4))
    tensors = map_params(lambda tensor: tensor.clone().requires_grad_(), learner.meta_parameters())
    task = tasks_of(image_episode(steps=4))[0]
    loss, _ = learner.outer_loss(tensors, task, {}, torch.zeros(()))
    depth, seen, edge = 0, set(), [loss.grad_fn]
    while edge:
        node = edge.pop()
        if node is not None and node not in seen:
            seen.add(node)
            edge += [parent for parent, _ in node.next_functions]
            depth += "ConvolutionBackward" in type(node).__name__
    assert depth == 4  # one forward pass of four convolutions, and none of the inner loop
