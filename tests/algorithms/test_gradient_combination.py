"""Sums of inner gradients: FOMAML and Reptile as special cases, a written-out loop, refusals."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, GradientCombination, Reptile
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.params import map_params
from tests.helpers import PATHS, gradient, image_episode, network

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.2


def walks(steps: int) -> Episode:
    """Tasks whose mini-batches of two rows walk through six support rows, each task in an order of its own."""
    order = torch.stack([torch.randperm(6)[: 2 * steps] for _ in range(3)]).view(3, steps, 2)
    return image_episode()._replace(inner_order=order)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("weights", [(1.0,), (0.0, 1.0), (1.0, 1.0), (0.5, 0.0, 2.0)])
def test_equals_a_written_out_loop(weights: tuple[float, ...], path: str) -> None:
    torch.manual_seed(0)
    episode = walks(len(weights))
    learner = GradientCombination(network(), InnerLoop(SGD(RATE), len(weights), 2), weights=weights)
    ours = gradient(learner, episode, **PATHS[path])
    expected: dict[str, Any] = {name: torch.zeros_like(grad) for name, grad in ours.grads.items()}
    for support_x, support_y, _, _, order, *_ in zip(*episode, strict=True):
        model = network()
        for weight, rows in zip(weights, order, strict=True):
            loss = functional.cross_entropy(model(support_x[rows]), support_y[rows])
            grads = torch.autograd.grad(loss, list(model.parameters()))
            for (name, parameter), grad in zip(model.named_parameters(), grads, strict=True):
                expected[f"backbone.{name}"] += weight * grad / 3
                parameter.data -= RATE * grad
    for name, grad in expected.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-12)


def test_the_last_gradient_alone_is_first_order_maml() -> None:
    """Whose inner steps take all mini-batches but the last, which is its query set."""
    torch.manual_seed(1)
    episode = walks(3)
    last = episode.inner_order[:, -1]
    tasks = torch.arange(3)[:, None]
    fomaml = episode._replace(
        query_x=episode.support_x[tasks, last],
        query_y=episode.support_y[tasks, last],
        inner_order=episode.inner_order[:, :-1],
    )
    ours = gradient(GradientCombination(network(), InnerLoop(SGD(RATE), 3, 2), weights=(0.0, 0.0, 1.0)), episode)
    theirs = gradient(FOMAML(network(), InnerLoop(SGD(RATE), 2, 2)), fomaml)
    for name, grad in theirs.grads.items():
        torch.testing.assert_close(ours.grads[name], grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.losses, theirs.losses)


def test_the_sum_of_all_gradients_is_reptile() -> None:
    torch.manual_seed(2)
    episode = walks(3)
    ours = gradient(GradientCombination(network(), InnerLoop(SGD(RATE), 3, 2), weights=(1.0, 1.0, 1.0)), episode)
    theirs = gradient(Reptile(network(), InnerLoop(SGD(RATE), 3, 2)), episode)
    scaled = map_params(lambda grad: RATE * grad, ours.grads)
    for name, grad in theirs.grads.items():
        torch.testing.assert_close(scaled[name], grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "said"),
    [((1.0,), "model.weights has 1 entries, but model.inner.steps is 2"), ((0.0, 0.0), "at least one must differ")],
)
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        GradientCombination(network(), InnerLoop(SGD(RATE), 2, 2), weights=weights)
