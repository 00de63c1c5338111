"""iMAML: the implicit gradient against finite differences at the solution, and against a solved linear system."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lightning_meta.algorithms import IMAML
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.params import Params, flatten, map_params, unflatten
from tests.helpers import PATHS, gradient, image_episode, network, tasks_of

pytestmark = pytest.mark.usefixtures("float64")

LAMBDA = 2.0


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3))


def mild_episode(steps: int) -> Episode:
    """Of small inputs, whose losses curve so little that the inner problem has one solution."""
    episode = image_episode(steps=steps)
    return episode._replace(support_x=0.3 * episode.support_x, query_x=0.3 * episode.query_x)


def loss_of(model: nn.Module, weights: Params, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(functional_call(model, weights, (x,)), y)


def solution(model: nn.Module, phi: Params, task: Episode) -> Params:
    """The minimum of the regularised support loss, by descent until nothing moves."""

    def slope(vector: Tensor) -> Tensor:
        weights = unflatten(vector.requires_grad_(), phi)
        distance = sum((weights[name] - phi[name]).square().sum() for name in phi)
        loss = loss_of(model, weights, task.support_x, task.support_y) + LAMBDA / 2 * distance
        return torch.autograd.grad(loss, vector)[0]

    vector = flatten(phi)
    for _ in range(300):
        gradient = slope(vector.detach())
        vector = vector.detach() - 0.3 * gradient
    assert gradient.norm() < 1e-12
    return unflatten(vector, phi)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["vectorised", "chunked", "looped"])
def test_equals_finite_differences_at_the_solution(path: str) -> None:
    torch.manual_seed(1)
    episode = mild_episode(80)
    learner = IMAML(smooth(), InnerLoop(SGD(0.4), 80), regularisation=LAMBDA, conjugate_gradient_steps=20)
    result = gradient(learner, episode, **PATHS[path])
    model = learner.backbone
    phi = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def losses_at(weights: Params) -> Tensor:
        return torch.stack(
            [loss_of(model, solution(model, weights, task), task.query_x, task.query_y) for task in tasks_of(episode)]
        )

    torch.testing.assert_close(result.losses, losses_at(phi), rtol=1e-11, atol=0)
    for _ in range(2):
        direction = map_params(torch.randn_like, phi)
        ahead = map_params(lambda weight, way: weight + 1e-4 * way, phi, direction)
        behind = map_params(lambda weight, way: weight - 1e-4 * way, phi, direction)
        slope = ((losses_at(ahead) - losses_at(behind)) / 2e-4).mean()
        ours = sum((result.grads[f"backbone.{name}"] * direction[name]).sum() for name in phi)
        torch.testing.assert_close(ours, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("damping", [0.0, 3.0])
@pytest.mark.parametrize(("path", "reduction"), [*((path, "mean") for path in PATHS), ("looped", "sum")])
def test_equals_a_solved_linear_system(path: str, reduction: Any, damping: float) -> None:
    """At weights that are not yet the solution, after mini-batches; the curvature is that of all support rows."""
    torch.manual_seed(2)
    order = torch.stack([torch.randperm(6)[:4] for _ in range(3)]).view(3, 2, 2)
    episode = mild_episode(2)._replace(inner_order=order)
    inner, tie = InnerLoop(SGD(0.1), 2, 2, reduction=reduction), LAMBDA * (6 if reduction == "sum" else 1)
    learner = IMAML(smooth(), inner, regularisation=tie, conjugate_gradient_steps=15, damping=damping)
    result = gradient(learner, episode, **PATHS[path])
    model = smooth()
    phi = {name: parameter.detach() for name, parameter in model.named_parameters()}
    expected = []
    for place, task in enumerate(tasks_of(episode)):

        def inner_loss(vector: Tensor, rows: Tensor) -> Tensor:
            outputs = functional_call(model, unflatten(vector, phi), (task.support_x[rows],))  # noqa: B023
            return functional.cross_entropy(outputs, task.support_y[rows], reduction=reduction)  # noqa: B023

        start = flatten(phi)
        vector = start
        for rows in task.inner_order:
            vector = vector - 0.1 * (torch.func.grad(inner_loss)(vector, rows) + tie * (vector - start))
        hessian = torch.func.jacrev(torch.func.grad(inner_loss))(vector, torch.arange(6))

        def query_loss(vector: Tensor) -> Tensor:
            return loss_of(model, unflatten(vector, phi), task.query_x, task.query_y)  # noqa: B023

        torch.testing.assert_close(result.losses[place], query_loss(vector))
        matrix = torch.eye(len(vector)) + hessian / (tie + damping)
        expected.append(torch.linalg.solve(matrix, torch.func.grad(query_loss)(vector)))
    grads = unflatten(torch.stack(expected).mean(0), phi)
    for name, grad in grads.items():
        torch.testing.assert_close(result.grads[f"backbone.{name}"], grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("path", ["vectorised", "looped"])
def test_an_endless_tie_leaves_the_plain_query_gradient(path: str) -> None:
    torch.manual_seed(3)
    episode = image_episode(steps=2)
    learner = IMAML(network(), InnerLoop(SGD(1e-12), 2), regularisation=1e12, conjugate_gradient_steps=2)
    result = gradient(learner, episode, **PATHS[path])
    model = network()
    losses = [functional.cross_entropy(model(task.query_x), task.query_y) for task in tasks_of(episode)]
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(result.losses, torch.stack(losses).detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(result.grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-9)


def test_names_that_do_not_sort_keep_their_gradients() -> None:
    """The vectors of the solver are cut back in the order in which they were put together (10 comes before 3)."""
    torch.manual_seed(4)
    episode = image_episode(steps=1)
    learner = IMAML(network(), InnerLoop(SGD(0.1), 1), regularisation=1e3, conjugate_gradient_steps=8)
    result = gradient(learner, episode)
    phi = learner.adapted_params(learner.meta_parameters())
    mean: Params = map_params(torch.zeros_like, phi)
    for task in tasks_of(episode):
        adapted = list(learner.adapt(learner.meta_parameters(), task))[-1][0]
        right = torch.func.grad(learner.query_loss)(adapted, task)
        left = unflatten(flatten(right), phi)
        for name in phi:
            torch.testing.assert_close(left[name], right[name])

        def support_gradient(weights: Params) -> Params:
            return torch.func.grad(learner.inner_loss)(weights, task, torch.arange(6))  # noqa: B023

        for _ in range(30):  # x <- b - H x / lambda, which contracts for a lambda above the curvature
            (curvature,) = torch.func.vjp(support_gradient, adapted)[1](left)  # H is symmetric
            left = map_params(lambda b, h: b - h / 1e3, right, curvature)
        mean = map_params(lambda total, part: total + part / 3, mean, left)
    for name, grad in mean.items():
        torch.testing.assert_close(result.grads[f"backbone.{name}"], grad, rtol=0, atol=1e-9)


def test_predictions_solve_the_regularised_problem() -> None:
    torch.manual_seed(5)
    learner = IMAML(smooth(), InnerLoop(SGD(0.4), 80, evaluation_steps=80), regularisation=LAMBDA)
    task = tasks_of(mild_episode(80))[0]
    outputs = learner.predictions(learner.meta_parameters(), task, {}).query
    phi = {name: parameter.detach() for name, parameter in learner.backbone.named_parameters()}
    solved = solution(learner.backbone, phi, task)
    torch.testing.assert_close(outputs[-1], functional_call(learner.backbone, solved, (task.query_x,)))
    torch.testing.assert_close(outputs[0], learner.backbone(task.query_x).detach())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"regularisation": 0.0}, "model.regularisation is 0.0, expected a number above 0"),
        ({"regularisation": -1.0}, "model.regularisation is -1.0, expected a number above 0"),
        ({"damping": -1.0}, "model.damping is -1.0, expected a number that is at least 0"),
        ({"regularisation": float("nan")}, "model.regularisation is nan, expected a number above 0"),
        ({"conjugate_gradient_steps": 0}, "model.conjugate_gradient_steps is 0, expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MetaLearningError, match=said):
        IMAML(smooth(), **settings)


@pytest.mark.parametrize("factor", [1.0, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_survive_half_precision(dtype: torch.dtype, factor: float) -> None:
    """Small ones are zero in float16 without a scale inside; with the scale, large ones must not overflow."""

    def scaled_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return factor * functional.cross_entropy(outputs, targets, reduction=reduction)

    torch.manual_seed(6)
    episode = mild_episode(2)
    episode = Episode(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in episode))
    learner = IMAML(smooth().float(), InnerLoop(SGD(0.2 / factor), 2), regularisation=LAMBDA * factor, loss=scaled_loss)
    exact = gradient(learner, episode)
    with torch.autocast("cpu", dtype):
        half = gradient(learner, episode)
    assert all(grad.dtype == torch.float32 for grad in half.grads.values())
    torch.testing.assert_close(half.losses, exact.losses, rtol=0.02, atol=0)
    error = sum((half.grads[name] - grad).square().sum() for name, grad in exact.grads.items())
    size = sum(grad.square().sum() for grad in exact.grads.values())
    assert error.sqrt() < 0.02 * size.sqrt()
