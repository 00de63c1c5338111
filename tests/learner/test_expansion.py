"""The expansion of the meta-gradients in the inner rate: Nichol, Achiam and Schulman, arXiv 1803.02999, section 5.1.

With two mini-batches whose gradients and Hessians at phi are g_1, g_2 and H_1, H_2, taken in either order:

    AvgGrad = E[g_1],   AvgGradInner = E[H_2 g_1] = 1/2 grad E[g_1 . g_2]
    MAML:    AvgGrad - 2 a AvgGradInner + O(a^2)
    FOMAML:  AvgGrad -   a AvgGradInner + O(a^2)
    Reptile: 2 AvgGrad - a AvgGradInner + O(a^2)   (divided by a)
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, MAML, GradientCombination, Reptile
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params, map_params
from tests.helpers import gradient

pytestmark = pytest.mark.usefixtures("float64")

TASKS, ROWS = 4, 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def mini_batches() -> tuple[Tensor, Tensor]:
    """Inputs (2, tasks, rows, 5) and labels (2, tasks, rows) of both mini-batches."""
    torch.manual_seed(1)
    return torch.randn(2, TASKS, ROWS, 5), torch.randint(3, (2, TASKS, ROWS))


def both_orders(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first and the second mini-batch of every task, once in this order and once in the other."""
    return torch.cat([x[0], x[1]]), torch.cat([y[0], y[1]]), torch.cat([x[1], x[0]]), torch.cat([y[1], y[0]])


def support_and_query() -> Episode:
    """One mini-batch to adapt on, the other one to score on."""
    first_x, first_y, second_x, second_y = both_orders(*mini_batches())
    order = torch.arange(ROWS).expand(2 * TASKS, 1, -1)
    return Episode(first_x, first_y, second_x, second_y, order, torch.arange(2 * TASKS), torch.empty(2 * TASKS, 0))


def two_steps() -> Episode:
    """Both in the support set, a step on each."""
    first_x, first_y, second_x, second_y = both_orders(*mini_batches())
    x, y = torch.cat([first_x, second_x], 1), torch.cat([first_y, second_y], 1)
    order = torch.arange(2 * ROWS).view(2, ROWS).expand(2 * TASKS, -1, -1)
    return Episode(x, y, x[:, :0], y[:, :0], order, torch.arange(2 * TASKS), torch.empty(2 * TASKS, 0))


def averages() -> tuple[Params, Params]:
    """AvgGrad and AvgGradInner, from the loss at phi alone."""
    model = network()
    names, parameters = zip(*model.named_parameters(), strict=True)
    x, y = mini_batches()
    grad = [torch.zeros_like(parameter) for parameter in parameters]
    inner = [torch.zeros_like(parameter) for parameter in parameters]
    for task in range(TASKS):
        g_1, g_2 = (
            torch.autograd.grad(
                functional.cross_entropy(model(x[half, task]), y[half, task]), parameters, create_graph=True
            )
            for half in range(2)
        )
        product = sum((a * b).sum() for a, b in zip(g_1, g_2, strict=True))
        for place, half in enumerate(torch.autograd.grad(product, parameters)):
            grad[place] += (g_1[place] + g_2[place]).detach() / (2 * TASKS)
            inner[place] += half / (2 * TASKS)
    return tuple({f"backbone.{name}": t for name, t in zip(names, part, strict=True)} for part in (grad, inner))  # type: ignore[return-value]


def ones(backbone: nn.Module, inner: InnerLoop) -> MetaLearner:
    return GradientCombination(backbone, inner, weights=(1.0, 1.0))


CASES: dict[str, tuple[Callable[..., MetaLearner], Callable[[], Episode], int, float, float]] = {
    "MAML": (MAML, support_and_query, 1, 1.0, -2.0),
    "FOMAML": (FOMAML, support_and_query, 1, 1.0, -1.0),
    "Reptile": (Reptile, two_steps, 2, 2.0, -1.0),
    "g1 + g2": (ones, two_steps, 2, 2.0, -1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_of_the_expansion_falls_fourfold_when_the_rate_halves(case: str) -> None:
    algorithm, episode, steps, of_grad, of_inner = CASES[case]
    grad, inner = averages()

    def error(rate: float) -> float:
        found = gradient(algorithm(network(), inner=InnerLoop(SGD(rate), steps, ROWS)), episode()).grads
        found = map_params(lambda tensor: tensor / rate, found) if case == "Reptile" else found
        expected = map_params(lambda g, h: of_grad * g + of_inner * rate * h, grad, inner)
        return float(sum((found[name] - expected[name]).square().sum() for name in found) ** 0.5)

    errors = [error(0.02 / 2**halving) for halving in range(4)]
    assert errors[0] > 1e-8  # there is something that falls
    for larger, smaller in itertools.pairwise(errors):
        assert larger / smaller == pytest.approx(4, rel=0.05)
