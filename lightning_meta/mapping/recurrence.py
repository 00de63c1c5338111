"""Recurrent layers of PyTorch, written out, so that they can be mapped over tasks and differentiated to any order.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; Cho et al., "Learning Phrase
Representations using RNN Encoder-Decoder", arXiv 1406.1078. PyTorch's own kernels have no rule for
``torch.func.vmap``, and on a GPU no second derivative.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_meta.errors import MetaLearningError

State = tuple[Tensor, ...]  # (output,), of an LSTM (output, cell), each (rows, units)
Step = Callable[[Tensor, Tensor, State], State]  # of what input and last output add to the gates, and the last state


@contextmanager
def exact_recurrence(module: nn.Module) -> Iterator[None]:
    """Within it, the recurrent layers of ``module`` are those of this file.

    Args:
        module: any; without ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` or a cell of these, nothing is changed.
    """
    if any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in module.modules()):
        with _RoutedRecurrence():
            yield
    else:
        yield


class _RoutedRecurrence(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func is getattr(torch, name, None):  # torch.lstm and its like, which nn.LSTM calls with positional arguments
            if name in _LAYERS:
                return _run_layers(name, *args)
            if name in _CELLS:
                return _run_cell(name, *args)
        return func(*args, **(kwargs or {}))


def _lstm(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    enter, keep, new, leave = (inputs + recurrent).chunk(4, -1)
    cell = keep.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _gru(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    (reset, update, new), (reset_h, update_h, new_h) = inputs.chunk(3, -1), recurrent.chunk(3, -1)
    candidate = (new + (reset + reset_h).sigmoid() * new_h).tanh()
    return (candidate + (update + update_h).sigmoid() * (state[0] - candidate),)


def _tanh(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    return ((inputs + recurrent).tanh(),)


def _relu(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    return ((inputs + recurrent).relu(),)


_LAYERS: dict[str, Step] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}
_CELLS: dict[str, Step] = {f"{name}_cell": step for name, step in _LAYERS.items()}


def _run_cell(
    name: str,
    x: Tensor,
    state: Any,
    input_weight: Tensor,
    weight: Tensor,
    input_bias: Tensor | None = None,
    bias: Tensor | None = None,
) -> Any:
    """``torch.lstm_cell`` and its like, with their arguments."""
    last = tuple(state) if name == "lstm_cell" else (state,)
    gates = functional.linear(x, input_weight, input_bias), functional.linear(last[0], weight, bias)
    new = _CELLS[name](*gates, last)
    return new if name == "lstm_cell" else new[0]


def _run_layers(
    name: str,
    x: Tensor,
    state: Any,
    weights: Any,
    has_bias: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """``torch.lstm`` and its like, with their arguments: the outputs of the last layer and the last states of all.

    Raises:
        MetaLearningError: the input is a ``PackedSequence``.
    """
    if not isinstance(has_bias, bool):  # where a packed sequence has the weights
        raise MetaLearningError(
            f"model.backbone runs nn.{name.partition('_')[0].upper()} on a PackedSequence, whose lengths are values "
            "that differ from task to task: give it the padded tensor, and mask what comes after the end"
        )
    first = tuple(state) if name == "lstm" else (state,)  # each (layers * directions, rows, units)
    x = x.transpose(0, 1) if batch_first else x
    runs = layers * (1 + bidirectional)
    each = len(weights) // runs
    states: list[State] = []
    for layer in range(layers):
        if layer and dropout and train:
            x = functional.dropout(x, dropout)
        outputs = []
        for reverse in (False, True)[: 1 + bidirectional]:
            run = len(states)
            own = weights[run * each : (run + 1) * each]
            output, last = _run_layer(_LAYERS[name], x, tuple(s[run] for s in first), own, has_bias, reverse)
            outputs.append(output)
            states.append(last)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
    return x.transpose(0, 1) if batch_first else x, *(torch.stack(every) for every in zip(*states, strict=True))


def _run_layer(
    step: Step, x: Tensor, state: State, weights: Any, has_bias: bool, reverse: bool
) -> tuple[Tensor, State]:
    """Outputs (time, rows, units) of one layer in one direction for ``x`` of shape (time, rows, inputs), last state."""
    input_weight, weight, *rest = weights
    input_bias, bias = rest[:2] if has_bias else (None, None)
    (projection,) = rest[2 * has_bias :] or (None,)  # of an LSTM with proj_size
    outputs = []
    inputs = functional.linear(x, input_weight, input_bias).unbind()  # of all times in one product
    for at_time in reversed(inputs) if reverse else inputs:
        state = step(at_time, functional.linear(state[0], weight, bias), state)
        if projection is not None:
            state = functional.linear(state[0], projection), *state[1:]
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state
