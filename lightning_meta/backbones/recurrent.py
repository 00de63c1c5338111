"""Recurrent networks for sequences."""

from torch import Tensor, nn


class _Recurrent(nn.Module):
    def __init__(self, recurrent: nn.LSTM | nn.GRU, outputs: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(recurrent.hidden_size * (1 + recurrent.bidirectional), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (rows, outputs) for sequences ``x``, (rows, time, features), or images, (rows, 1, height, width)."""
        _, state = self.recurrent(x.flatten(1, -2))
        last = state[0] if isinstance(state, tuple) else state  # (layers * directions, rows, hidden)
        return self.head(last[-1 - self.recurrent.bidirectional :].movedim(0, 1).flatten(1))


class LSTM(_Recurrent):
    """Layers of PyTorch's ``nn.LSTM`` and a linear head on what the last layer gives at the end of a sequence.

    Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997. Of two directions, each ends
    where it has read the whole sequence. An image is read line by line. The layers are ``recurrent``, whose
    ``state_dict`` is that of ``nn.LSTM``.

    Args:
        outputs: width of the output, the number of ways.
        inputs: features at one time; of an image its width.
        hidden: units of a layer, in each direction.
        layers: how many there are.
        bidirectional: whether every layer also reads the sequence from its end.
    """

    def __init__(
        self, outputs: int, inputs: int = 28, hidden: int = 64, layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__(nn.LSTM(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional), outputs)


class GRU(_Recurrent):
    """Layers of PyTorch's ``nn.GRU`` and a linear head, otherwise as `LSTM`.

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", arXiv 1406.1078.

    Args:
        outputs: width of the output, the number of ways.
        inputs: features at one time; of an image its width.
        hidden: units of a layer, in each direction.
        layers: how many there are.
        bidirectional: whether every layer also reads the sequence from its end.
    """

    def __init__(
        self, outputs: int, inputs: int = 28, hidden: int = 64, layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__(nn.GRU(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional), outputs)
