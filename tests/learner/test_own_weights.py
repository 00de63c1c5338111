"""No check touches a learner's tensors, whatever names they have: layers under two names, tied weights, buffers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_meta.algorithms import ANIL, BOIL, FOMAML, IMAML, MAML, FineTuning, PrototypicalNetworks, Reptile
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.params import call
from tests.helpers import glyphs, trainer

METHODS = [MAML, FOMAML, Reptile, ANIL, BOIL, IMAML, FineTuning, PrototypicalNetworks]


class Network(nn.Module):
    """A perceptron whose parts may have a second name; what it computes is always the same."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(784, 6), nn.Linear(6, 6, bias=False)
        self.register_buffer("scale", torch.tensor(0.5))
        if kind == "layer under two names":
            self.encoder = nn.Sequential(nn.Flatten(), self.first, nn.ReLU())
        elif kind == "block under two names":
            self.blocks = nn.ModuleDict({"body": nn.ModuleList([self.first, self.second])})
        elif kind == "buffer under two names":
            self.register_buffer("factor", self.scale)
        elif kind == "parametrised":
            parametrize.register_parametrization(self.second, "weight", Halved())
        elif kind == "frozen part":
            self.first.weight.requires_grad_(False)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.flatten(1)).tanh() * self.scale
        return self.out(self.second(hidden).tanh())


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Tied(nn.Module):
    """Two layers that share a weight, or one layer that runs twice."""

    def __init__(self, shared_layer: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(784, 6), nn.Linear(6, 6, bias=False)
        self.again = self.middle if shared_layer else nn.Linear(6, 6, bias=False)
        self.again.weight = self.middle.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.middle(self.first(x.flatten(1)).tanh()).tanh()))


KINDS: dict[str, Callable[[], nn.Module]] = {
    **{
        kind: (lambda kind=kind: Network(kind))
        for kind in ("layer under two names", "block under two names", "buffer under two names", "parametrised",
                     "frozen part")
    },
    "tied weights": lambda: Tied(shared_layer=False),
    "layer that runs twice": lambda: Tied(shared_layer=True),
}  # fmt: skip


def learner_of(method: type[MetaLearner], backbone: nn.Module, rate: float = 0.01) -> MetaLearner:
    settings: dict[str, Any] = {"optimizer": partial(torch.optim.SGD, lr=rate), "task_chunk": 4, "compile": False}
    if method is PrototypicalNetworks:
        return method(backbone, **settings)
    rule = Adam(0.01, beta1=0.0) if method is Reptile else SGD(0.1)
    settings |= {"lr_scheduler": None} if method is Reptile else {}
    return method(backbone, InnerLoop(rule, 2, evaluation_steps=2), **settings)


def tensors(learner: MetaLearner) -> dict[str, Tensor]:
    """Under every name that they have."""
    found = dict(learner.backbone.named_parameters(remove_duplicate=False))
    found |= dict(learner.backbone.named_buffers(remove_duplicate=False))
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_setup_and_test_leave_every_tensor_as_it_is(method: type[MetaLearner], kind: str, tmp_path: Path) -> None:
    learner = learner_of(method, KINDS[kind](), rate=0.0)
    before, objects = tensors(learner), dict(learner.backbone.named_parameters(remove_duplicate=False))
    run = trainer(tmp_path, max_steps=1)
    run.fit(learner, glyphs(train_shots=2))  # the checks before a fit, and a meta-step of no length
    run.test(learner, glyphs(test_tasks=2), verbose=False)
    after = dict(learner.backbone.named_parameters(remove_duplicate=False))
    assert all(after[name] is objects[name] for name in objects)
    torch.testing.assert_close(tensors(learner), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["layer under two names", "block under two names", "buffer under two names"])
@pytest.mark.parametrize("method", METHODS)
def test_a_second_name_changes_nothing_in_training(method: type[MetaLearner], kind: str, tmp_path: Path) -> None:
    trained = []
    for network in (Network(), Network(kind)):
        learner = learner_of(method, network)
        torch.manual_seed(1)  # joint training draws a classifier
        trainer(tmp_path, max_steps=3).fit(learner, glyphs(train_shots=2))
        trained.append({name: tensor.detach() for name, tensor in network.named_parameters()})
    first, second = trained
    assert not torch.equal(first["first.weight"], Network().first.weight)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.usefixtures("float64")
def test_tied_weights_get_the_gradient_of_both_places() -> None:
    """Against the network with two layers of its own, whose gradients are added."""
    tied, apart = Tied(shared_layer=False), Tied(shared_layer=False)
    apart.again.weight = nn.Parameter(apart.middle.weight.detach().clone())
    x = torch.randn(4, 784)
    weights = {name: tensor.detach() for name, tensor in tied.named_parameters()}
    grads = torch.func.grad(lambda weights: call(tied, weights, x).square().sum())(weights)
    apart(x).square().sum().backward()
    torch.testing.assert_close(grads["middle.weight"], apart.middle.weight.grad + apart.again.weight.grad)


def test_a_name_that_the_network_does_not_have_is_refused() -> None:
    """Fast weights under it would be adapted to no effect."""
    with pytest.raises(MetaLearningError, match="Linear has no parameter or buffer weigth, which a method gives it"):
        call(nn.Linear(2, 2), {"weigth": torch.zeros(2, 2)}, torch.zeros(1, 2))
