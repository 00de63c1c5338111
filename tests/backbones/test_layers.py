"""Layers that a person's network may hold: right to second order, or refused in one line with what to take instead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from lightning_meta.algorithms import FOMAML, MAML, PrototypicalNetworks, Reptile
from lightning_meta.backbones import GRU, LSTM
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from tests.helpers import PATHS, glyphs, gradient, image_episode, tasks_of, trainer

RATE = 0.3


class OnRows(nn.Module):
    """A layer of a person's own network on the rows of an image, and a head."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.layer(x[:, 0])
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        return self.head(outputs.flatten(1).tanh() if outputs.dim() != 3 else outputs[:, -1].tanh())


class OnTokens(nn.Module):
    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding, self.head = embedding, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding((x.flatten(1).abs() * 4).long().clamp(max=9)).mean(1).tanh())


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = nn.Linear(784, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, x.flatten(1), use_reentrant=False))


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: LSTM(3, inputs=8, hidden=5),
    "LSTM, deep, both ways": lambda: LSTM(3, inputs=8, hidden=5, layers=2, bidirectional=True),
    "GRU": lambda: GRU(3, inputs=8, hidden=5),
    "nn.LSTM": lambda: OnRows(nn.LSTM(8, 5, batch_first=True), 5),
    "nn.GRU": lambda: OnRows(nn.GRU(8, 5, 2, batch_first=True), 5),
    "nn.RNN": lambda: OnRows(nn.RNN(8, 5, batch_first=True), 5),
    "embedding with padding": lambda: OnTokens(nn.Embedding(10, 4, padding_idx=0)),
    "weight norm": lambda: flat(parametrizations.weight_norm(nn.Linear(64, 4)), nn.Tanh(), nn.Linear(4, 3)),
    "orthogonal": lambda: flat(parametrizations.orthogonal(nn.Linear(64, 4)), nn.Tanh(), nn.Linear(4, 3)),
    "bilinear": lambda: OnRows(nn.Sequential(nn.Flatten(), _Twice()), 4),
    "transposed convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, 2), nn.Tanh(), nn.ConvTranspose2d(2, 1, 2), nn.Flatten(), nn.Linear(16, 3)
    ),
    "PReLU": lambda: flat(nn.Linear(64, 4), nn.PReLU(4), nn.Linear(4, 3)),
    "in-place ReLU": lambda: flat(nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
    "group norm": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(18, 3)),
}


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(64, 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, x.cos())


def written_out(kind: type, network: nn.Module, task: Episode) -> dict[str, Tensor]:
    """The meta-gradient of one task in plain PyTorch."""
    params = dict(network.named_parameters())
    fast = params
    for rows in task.inner_order:
        outputs = functional_call(network, fast, (task.support_x[rows],))
        loss = functional.cross_entropy(outputs, task.support_y[rows])
        slopes = torch.autograd.grad(loss, list(fast.values()), create_graph=kind is MAML)
        fast = {name: p - RATE * slope for (name, p), slope in zip(fast.items(), slopes, strict=True)}
    if kind is Reptile:
        return {name: (params[name] - fast[name]).detach() for name in fast}
    loss = functional.cross_entropy(functional_call(network, fast, (task.query_x,)), task.query_y)
    return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of PyTorch: right, in a loop over tasks
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [MAML, FOMAML, Reptile])
@pytest.mark.parametrize("name", RIGHT)
def test_meta_gradients_equal_a_written_out_loop(name: str, kind: type) -> None:
    torch.manual_seed(0)
    network, batch = RIGHT[name](), image_episode(steps=2)
    learner = kind(network, InnerLoop(SGD(RATE), 2))
    found = {path: gradient(learner, batch, **PATHS[path]).grads for path in ("vectorised", "looped")}
    each = [written_out(kind, network, task) for task in tasks_of(batch)]
    for key in each[0]:
        expected = sum(grads[key] for grads in each) / len(each)
        for grads in found.values():
            torch.testing.assert_close(grads[f"backbone.{key}"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_traced_lstm_equals_one_that_is_not() -> None:
    learner, batch = MAML(LSTM(3, inputs=8, hidden=4), InnerLoop(SGD(RATE))), image_episode()
    plain, traced = (gradient(learner, batch, **PATHS[path]).grads for path in ("vectorised", "compiled"))
    torch.testing.assert_close(traced, plain, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("ours", "theirs"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_weights_go_to_pytorch_and_back(ours: Any, theirs: Any) -> None:
    network, layer = ours(5, inputs=3, hidden=4, layers=2), theirs(3, 4, 2, batch_first=True)
    network.recurrent.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, 3)
    torch.testing.assert_close(network(x), network.head(layer(x)[0][:, -1]))
    layer.load_state_dict(network.recurrent.state_dict())


@pytest.mark.parametrize("kind", [MAML, PrototypicalNetworks])
@pytest.mark.parametrize("backbone", [LSTM, GRU])
def test_recurrent_backbones_fit_and_test(kind: Any, backbone: Any, tmp_path: Any) -> None:
    inner = (InnerLoop(SGD(RATE), evaluation_steps=1),) if kind is MAML else ()
    learner = kind(backbone(3, hidden=4), *inner, compile=False)
    run = trainer(tmp_path, max_steps=1)
    run.fit(learner, glyphs())
    run.test(learner, glyphs(test_tasks=2), verbose=False)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: flat(nn.LazyLinear(3)), "LazyLinear at 1, whose weights have no shape"),
    "data parallel": (lambda: nn.DataParallel(flat(nn.Linear(784, 3))), "DataParallel at its root, .* its `module`"),
    "scripted": (lambda: torch.jit.script(flat(nn.Linear(784, 3))), "RecursiveScriptModule at its root, which is comp"),
    "compiled": (lambda: torch.compile(flat(nn.Linear(784, 3))), "OptimizedModule at its root, which torch.compile"),
    "compiled part": (lambda: flat(torch.compile(nn.Linear(784, 3))), "OptimizedModule at 1, which torch.compile"),
    "spectral norm": (
        lambda: flat(parametrizations.spectral_norm(nn.Linear(784, 3))), "_SpectralNorm at 1.parametrizations.weight.0"
    ),
    "older spectral norm": (lambda: flat(nn.utils.spectral_norm(nn.Linear(784, 3))), "Linear at 1, that is, spectral"),
    "embedding, max_norm": (lambda: OnTokens(nn.Embedding(10, 4, max_norm=1)), "Embedding at embedding, whose max_nor"),
    "embedding, sparse": (lambda: OnTokens(nn.Embedding(10, 4, sparse=True)), "set sparse to False"),
    "embedding, frequency": (lambda: OnTokens(nn.Embedding(10, 4, scale_grad_by_freq=True)), "set scale_grad_by_freq"),
    "batch norm": (lambda: flat(nn.Linear(784, 3), nn.BatchNorm1d(3)), "model.replace_norms"),
    "instance norm": (lambda: nn.Sequential(nn.InstanceNorm2d(1), flat(nn.Linear(784, 3))), "model.replace_norms"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*", "ignore:.*spectral_norm.*")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", [MAML, Reptile, PrototypicalNetworks])
def test_layers_that_cannot_be_mapped_are_refused_with_what_to_take(name: str, kind: Any) -> None:
    make, said = REFUSED[name]
    with pytest.raises(MetaLearningError, match=said) as refusal:
        kind(make())
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_older_weight_norm_is_refused() -> None:
    with pytest.raises(MetaLearningError, match="Linear at 1, which has torch.nn.utils.weight_norm and"):
        MAML(flat(nn.utils.weight_norm(nn.Linear(784, 3))))


@pytest.mark.parametrize("kind", [MAML, PrototypicalNetworks])
def test_checkpointed_blocks_are_refused(kind: Any, tmp_path: Any) -> None:
    with pytest.raises(MetaLearningError, match="torch.utils.checkpoint does not work in torch.func: call the block"):
        trainer(tmp_path).fit(kind(Checkpointed()), glyphs())
