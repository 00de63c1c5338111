"""PyTorch's recurrent layers and embeddings, mapped over tasks: equal to a written-out loop to second order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_sequence

from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping import exact_embedding, exact_recurrence
from lightning_meta.params import Params, call

pytestmark = pytest.mark.usefixtures("float64")

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(3, 4),
    "lstm, deep, both ways": lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
    "lstm, projected": lambda: nn.LSTM(3, 4, 2, proj_size=2, bias=False),
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "gru, deep, both ways": lambda: nn.GRU(3, 4, 2, bidirectional=True, bias=False),
    "tanh": lambda: nn.RNN(3, 4, 2),
    "relu": lambda: nn.RNN(3, 4, nonlinearity="relu"),
    "lstm cell": lambda: nn.LSTMCell(3, 4),
    "gru cell": lambda: nn.GRUCell(3, 4),
    "tanh cell": lambda: nn.RNNCell(3, 4, bias=False),
}


def flat(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [leaf for part in outputs for leaf in flat(part)]


def squared_slope(run: Callable[[Params], Any]) -> Callable[[Params], Tensor]:
    """A function of a first derivative, whose gradient holds second ones."""

    def loss(params: Params) -> Tensor:
        return sum((part.sin().sum() for part in flat(run(params))), torch.zeros(()))

    return lambda params: sum((grad.square().sum() for grad in torch.func.grad(loss)(params).values()), torch.zeros(()))


@pytest.mark.parametrize("kind", LAYERS)
def test_recurrent_layers_equal_those_of_pytorch_to_second_order(kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    x = torch.randn(5, 3) if "cell" in kind else torch.randn(5, 6, 3)
    tasks = [{name: p.detach() + 0.1 * task for name, p in layer.named_parameters()} for task in range(3)]
    stacked = {name: torch.stack([params[name] for params in tasks]) for name in tasks[0]}
    with exact_recurrence(layer):
        ours = torch.func.vmap(lambda params: call(layer, params, x))(stacked)
        second = torch.func.vmap(torch.func.grad(squared_slope(lambda params: call(layer, params, x))))(stacked)
    for task, params in enumerate(tasks):  # by PyTorch's own layer, without vmap
        for found, expected in zip(flat(ours), flat(functional_call(layer, params, (x,))), strict=True):
            torch.testing.assert_close(found[task], expected, rtol=1e-12, atol=1e-12)
        theirs = torch.func.grad(squared_slope(lambda params: functional_call(layer, params, (x,))))(params)
        torch.testing.assert_close({name: grad[task] for name, grad in second.items()}, theirs, rtol=1e-9, atol=1e-11)


def test_a_state_to_start_from_is_used() -> None:
    layer, x, state = nn.LSTM(3, 4), torch.randn(5, 2, 3), (torch.randn(1, 2, 4), torch.randn(1, 2, 4))
    with exact_recurrence(layer):
        ours = layer(x, state)
    torch.testing.assert_close(ours, layer(x, state))


def test_packed_sequences_are_refused() -> None:
    layer, packed = nn.GRU(3, 4), pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with exact_recurrence(layer), pytest.raises(MetaLearningError, match="runs nn.GRU on a PackedSequence"):
        layer(packed)


EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Embedding(5, 3),
    "padding": lambda: nn.Embedding(5, 3, padding_idx=0),
    "padding at the end": lambda: nn.Embedding(5, 3, padding_idx=-1),
    "bag": lambda: nn.EmbeddingBag(5, 3),
    "bag, sum": lambda: nn.EmbeddingBag(5, 3, mode="sum"),
    "bag, max": lambda: nn.EmbeddingBag(5, 3, mode="max"),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_embeddings_equal_products_with_one_hot_rows_to_second_order(kind: str) -> None:
    torch.manual_seed(0)
    layer, x = EMBEDDINGS[kind](), torch.tensor([[0, 1, 1, 4], [2, 0, 3, 4]])
    weights = torch.stack([layer.weight.detach(), layer.weight.detach() + 0.1])

    def written_out(params: Params) -> Tensor:
        weight = params["weight"]
        if getattr(layer, "padding_idx", None) is not None:
            learns = torch.ones(5, 1).index_fill(0, torch.tensor(layer.padding_idx), 0)
            weight = weight * learns + weight.detach() * (1 - learns)
        rows = nn.functional.one_hot(x, 5).to(weight) @ weight
        return getattr(torch, {"max": "amax"}.get(layer.mode, layer.mode))(rows, 1) if "bag" in kind else rows

    with exact_embedding(layer):
        outputs = torch.func.vmap(lambda params: call(layer, params, x))({"weight": weights})
        second = torch.func.vmap(torch.func.grad(squared_slope(lambda params: call(layer, params, x))))(
            {"weight": weights}
        )
    for task, weight in enumerate(weights):
        torch.testing.assert_close(outputs[task], written_out({"weight": weight}))
        expected = torch.func.grad(squared_slope(written_out))({"weight": weight})
        torch.testing.assert_close(second["weight"][task], expected["weight"], rtol=1e-10, atol=1e-12)
