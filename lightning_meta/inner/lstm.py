"""A learned inner rule: an LSTM that turns the gradient of every coordinate into its step.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", arXiv 1606.04474; code
https://github.com/deepmind/learning-to-learn
"""

import math
import pickle
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_meta import checkpoint_file
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner.optimizers import InnerOptimizer
from lightning_meta.params import Params, map_params, named

LAYERS = 2

State = list[tuple[Tensor, Tensor]]  # of each layer: output and cell state, each (coordinates, units)


@dataclass(frozen=True)
class LSTMOptimizer(InnerOptimizer):
    """Every coordinate moves by the output of a small LSTM with a memory of its own and weights that all share.

    theta_{t+1} = theta_t + output_scale * m(preprocessed gradient of theta_t), with m two LSTM layers and a linear one.
    Since a rule knows no order and no number of coordinates, it serves any network.

    Attributes:
        units: of each LSTM layer.
        output_scale: what the linear layer's output is multiplied by; the source takes .1, and .01 for networks.
        k: magnitudes below e^-k are the linear part of the preprocessing, see `log_and_sign`.
        checkpoint: of a run of `LearnedOptimizer`, whose trained rule is to be started from; None for a new one.
    """

    units: int = 20
    output_scale: float = 0.1
    k: float = 5.0
    checkpoint: str | None = None

    def learned(self, fast: Params) -> Params:
        """Weights and biases of the LSTM, drawn as the source draws them, or the checkpoint's.

        Weights are truncated normal with variance 1 / fan-in, biases 0 and those of the forget gates 1.

        Raises:
            MetaLearningError: the checkpoint cannot be read, or is not one of such a rule.
        """
        like = next(iter(fast.values()))
        rule = {}
        for layer, inputs in enumerate([2, *[self.units] * (LAYERS - 1)]):
            weight = like.new_empty(inputs + self.units, 4 * self.units)
            rule[f"lstm.{layer}.weight"] = _truncated_normal(weight)
            rule[f"lstm.{layer}.bias"] = like.new_zeros(4 * self.units)
            rule[f"lstm.{layer}.bias"][self.units : 2 * self.units] = 1
        rule["linear.weight"] = _truncated_normal(like.new_empty(self.units, 1))
        rule["linear.bias"] = like.new_zeros(1)
        return rule if self.checkpoint is None else self._read(self.checkpoint, rule)

    def init(self, fast: Params) -> State:
        """No memory for any coordinate."""
        like = next(iter(fast.values()))
        coordinates = sum(weight.numel() for weight in fast.values())
        zeros = like.new_zeros(coordinates, self.units)
        return [(zeros, zeros.clone()) for _ in range(LAYERS)]

    def update(self, grads: Params, state: State, fast: Params, meta: Params, step: int) -> tuple[Params, State]:
        """One step of all coordinates as the rows of one matrix.

        Raises:
            MetaLearningError: coordinates and rule are not of one precision and on one device.
        """
        _check_mixture(fast, meta)
        with torch.autocast(meta["linear.bias"].device.type, enabled=False):  # memories add up over the steps
            x = log_and_sign(torch.cat([grad.flatten() for grad in grads.values()]), self.k)
            memory = []
            for layer, (output, cell) in enumerate(state):
                memory.append(lstm_cell(x, output, cell, **named(f"lstm.{layer}", meta)))
                x = memory[-1][0]
            steps = self.output_scale * torch.addmm(meta["linear.bias"], x, meta["linear.weight"])
        pieces = steps.flatten().split([weight.numel() for weight in fast.values()])
        by_name = {name: piece.view_as(fast[name]) for name, piece in zip(fast, pieces, strict=True)}
        return map_params(torch.add, fast, by_name), memory

    def _read(self, path: str, expected: Params) -> Params:
        """The trained rule of a checkpoint, in the form of the ``expected`` one."""
        setting = f"model.inner.optimizer.checkpoint is {path}"
        try:
            checkpoint_file.verify(path)
            checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        except MetaLearningError as error:
            raise MetaLearningError(f"{setting}: {error}") from None
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise MetaLearningError(f"{setting}, which cannot be read as a checkpoint: {error}") from error
        held = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
        rule = {name.replace("/", "."): value for name, value in named("inner_parameters", held or {}).items()}
        if rule.keys() != expected.keys():
            raise MetaLearningError(f"{setting}, which holds no LSTMOptimizer: name one of a run of LearnedOptimizer")
        settings = checkpoint.get("hyper_parameters", {}).get("inner", {}).get("optimizer", {}).get("init_args", {})
        settings = settings | {"units": len(rule["linear.weight"])}
        for name in ("units", "output_scale", "k"):
            if settings.get(name, getattr(self, name)) != getattr(self, name):
                raise MetaLearningError(
                    f"{setting}, a rule of {name} {settings[name]}, but model.inner.optimizer.{name} is "
                    f"{getattr(self, name)}: set it to {settings[name]}"
                )
        return {name: value.to(expected[name]) for name, value in rule.items()}


def log_and_sign(grads: Tensor, k: float) -> Tensor:
    """Two inputs of like size from gradients of any magnitude (Andrychowicz et al., appendix A).

    (log|g| / k, sign g) where |g| >= e^-k, else (-1, e^k g).

    Args:
        grads: shape (coordinates,).
        k: as above; the paper's p.

    Returns:
        Shape (coordinates, 2).
    """
    logarithm = torch.log(grads.abs() + torch.finfo(grads.dtype).eps) / k
    return torch.stack([logarithm.clamp(min=-1), (grads * math.exp(k)).clamp(-1, 1)], -1)


def lstm_cell(x: Tensor, output: Tensor, cell: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM with forget gates, as ``torch.nn.LSTMCell`` has it, for all coordinates.

    Args:
        x: shape (coordinates, inputs).
        output: the layer's last one, shape (coordinates, units).
        cell: its last cell state, of the same shape.
        weight: input, forget, cell and output gates side by side: (inputs + units, 4 * units).
        bias: shape (4 * units,).

    Returns:
        The new output and cell state.
    """
    # tanh(x) = 2 sigmoid(2 x) - 1: one sigmoid for all gates, which a CPU computes several times faster than tanh.
    one = bias.new_ones(output.shape[-1])
    slope = torch.cat([one, one, 2 * one, one])
    gates = torch.addmm(bias * slope, torch.cat([x, output], -1), weight * slope).sigmoid()
    enter, keep, new, leave = gates.chunk(4, -1)
    cell = keep * cell + enter * (2 * new - 1)
    return leave * (2 * torch.sigmoid(2 * cell) - 1), cell


def _truncated_normal(weight: Tensor) -> Tensor:
    deviation = len(weight) ** -0.5
    return nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def _check_mixture(fast: Params, meta: Params) -> None:
    rule = next(iter(meta.values()))
    for name, weight in fast.items():
        if (weight.dtype, weight.device) != (rule.dtype, rule.device):
            raise MetaLearningError(
                f"model.inner.optimizer LSTMOptimizer is of {rule.dtype} on {rule.device}, but {name} of the network "
                f"that it moves is of {weight.dtype} on {weight.device}: give the whole network one precision and "
                "device, as backbone.float() does, and set the run's with trainer.precision and trainer.accelerator"
            )
