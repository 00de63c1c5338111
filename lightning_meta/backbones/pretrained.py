"""Networks of torchvision and others, started from weights in a file."""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from lightning_meta.backbones.norms import replace_norms
from lightning_meta.errors import MetaLearningError

_RANDOM = _DropoutNd, StochasticDepth
_REMEDY = "give one number for each channel in mean and deviation, or set mean to null"
_OTHER_CHANNELS = re.compile("channels|shapes cannot be multiplied")  # what a convolution or a linear layer says


class Pretrained(nn.Module):
    """A network with weights from a file and a new linear head in the place of its last layer.

    Its batch norms use their running statistics, which never change, so that its features stay as they were trained.
    Dropout and stochastic depth are switched off. Nothing is downloaded.

    Args:
        outputs: width of the new head, the number of ways.
        network: any that ends with an ``nn.Linear``, such as ``torchvision.models.resnet18``.
        weights: its ``state_dict``, a ``.safetensors`` file or one of ``torch.save``, whose last layer is not used;
            None to keep the weights that it has.
        freeze_norms: whether batch norms use their running statistics. Otherwise they use those of each batch, as
            `lightning_meta.backbones.BatchNorm` does.
        frozen: whether everything but the head keeps its weights; otherwise all of it learns.
        mean: of each channel of the images that the weights were trained on, which is subtracted; by default that of
            ImageNet, for images in 0..1. Images of one channel get as many. None to leave images as they are.
        deviation: by which the difference is then divided.

    Raises:
        MetaLearningError: the network does not end with an ``nn.Linear``, the file does not hold its weights or holds
            some that are not finite, or mean and deviation are not one number for each channel, above 0 for deviation.
    """

    def __init__(
        self,
        outputs: int,
        network: nn.Module,
        weights: str | None = None,
        freeze_norms: bool = True,
        frozen: bool = False,
        mean: Sequence[float] | None = (0.485, 0.456, 0.406),
        deviation: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        name, head = _last_layer(network)
        if weights is not None:
            _load(network, weights, except_for=f"{name}.")
        replace_norms(network, keep_statistics=freeze_norms)
        for part in network.modules():
            if isinstance(part, _RANDOM):
                part.p = 0.0
        network.requires_grad_(not frozen)
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Linear(head.in_features, outputs))
        self.network = network
        moments = None if mean is None else _moments(mean, deviation)
        self.register_buffer("moments", moments, persistent=False)  # settings, and no weights

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (rows, outputs) for images ``x``, (rows, channels, height, width)."""
        if isinstance(self.moments, Tensor):
            mean, deviation = self.moments
            if len(mean) > 1 and x.shape[1] not in (1, len(mean)):
                raise MetaLearningError(
                    f"model.backbone.mean has {len(mean)} numbers, but the images have {x.shape[1]} channels: {_REMEDY}"
                )
            if x.shape[1] < len(mean):
                return self._of_grey((x - mean) / deviation)
            x = (x - mean) / deviation
        return self.network(x)

    def _of_grey(self, x: Tensor) -> Tensor:
        """Outputs for images of one channel, which normalisation gave as many as the mean has numbers."""
        try:
            return self.network(x)
        except RuntimeError as error:
            if not _OTHER_CHANNELS.search(str(error)):
                raise
            raise MetaLearningError(
                f"model.backbone.mean has {x.shape[1]} numbers, so images of 1 channel get {x.shape[1]}, which "
                f"{type(self.network).__name__} does not take: {_REMEDY}"
            ) from error


def _last_layer(network: nn.Module) -> tuple[str, nn.Linear]:
    layers = [(name, part) for name, part in network.named_modules() if not list(part.children())]
    name, last = [item for item in layers if not isinstance(item[1], (*_RANDOM, nn.Identity))][-1]
    if not isinstance(last, nn.Linear) or not name:
        raise MetaLearningError(
            f"model.backbone.network {type(network).__name__} ends with {type(last).__name__} at {name or 'its root'}, "
            "expected a torch.nn.Linear, whose place the head for the ways takes"
        )
    return name, last


def _moments(mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Mean and deviation, (2, channels, 1, 1)."""
    rows = []
    for name, values in (("mean", mean), ("deviation", deviation)):
        expected = "numbers above 0" if name == "deviation" else "finite numbers"
        try:
            row = torch.tensor([float(value) for value in values])
        except (TypeError, ValueError):
            row = torch.tensor([])
        if not len(row) or not row.isfinite().all() or (name == "deviation" and (row <= 0).any()):
            raise MetaLearningError(
                f"model.backbone.{name} is {values!r:.80}, expected a list of {expected}, one for each channel"
            )
        rows.append(row)
    if len(rows[0]) != len(rows[1]):
        raise MetaLearningError(
            f"model.backbone.mean has {len(rows[0])} numbers and model.backbone.deviation {len(rows[1])}, expected one "
            "for each channel in both"
        )
    return torch.stack(rows)[..., None, None]


def _load(network: nn.Module, path: str, except_for: str) -> None:
    """Give the network the weights of a file, but those whose names begin with ``except_for``."""
    setting = f"model.backbone.weights is {path}"
    state, expected = (
        {
            name: value
            for name, value in tensors.items()
            if not name.startswith(except_for) and not name.endswith("num_batches_tracked")  # which no norm here uses
        }
        for tensors in (_read(path, setting), network.state_dict())
    )
    state |= {name: own for name, own in expected.items() if name in state and _is_rounded(state[name], own)}
    for name in (*expected, *state):
        shapes = [tensors[name].shape if name in tensors else None for tensors in (state, expected)]
        if shapes[0] != shapes[1]:
            raise MetaLearningError(
                f"{setting}, whose {name} is {_shape(shapes[0])}, but in {type(network).__name__} it is "
                f"{_shape(shapes[1])}: give weights of this very network, and its settings as they were"
            )
        if shapes[0] == shapes[1] and (wrong := _what_is_wrong(state[name], expected[name])):
            raise MetaLearningError(f"{setting}, whose {name} {wrong}: give weights as the network was trained with")
        if name.endswith("running_var") and (state[name] < 0).any():
            raise MetaLearningError(f"{setting}, whose {name} holds negative variances: give weights of another file")
    network.load_state_dict(state, strict=False)


def _read(path: str, setting: str) -> dict[str, Tensor]:
    """The tensors of a file by their names."""
    file = Path(path).expanduser()
    try:
        if file.exists() and not file.is_file():  # reading a pipe may never end
            raise OSError("it is not a regular file")
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, weights_only=True, map_location="cpu")
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        if not isinstance(state, dict):
            raise ValueError(f"it holds an object of type {type(state).__name__}")
        if other := next((name for name, value in state.items() if not _is_named_tensor(name, value)), None):
            raise ValueError(f"{other} is not a tensor with a name")
        return state
    except FileNotFoundError:
        raise MetaLearningError(
            f"{setting}, but there is no such file: nothing is downloaded, so save the network's state_dict there, or "
            "set it to null"
        ) from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "it is damaged, or holds more than tensors" if pickled else _first_line(error)
        raise MetaLearningError(f"{setting}, which cannot be read as a state_dict: {reason}") from error


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _is_rounded(found: Tensor, own: Tensor) -> bool:
    """Whether values are the network's own whole numbers, such as places, in a file that holds all in a float type."""
    if own.is_floating_point() or not found.is_floating_point() or found.layout != own.layout or found.is_meta:
        return False
    return torch.equal(found, own.to(found))


def _what_is_wrong(found: Tensor, expected: Tensor) -> str | None:
    """Why values cannot stand in the place of others, if so."""
    if found.layout != torch.strided or found.is_quantized or found.is_meta:
        return "is sparse, quantised or without values"
    if found.is_complex() != expected.is_complex() or found.is_floating_point() != expected.is_floating_point():
        return f"holds {found.dtype}, but {expected.dtype} is expected"
    wrong = ~found.to(expected.dtype).isfinite() & expected.isfinite()  # a mask may hold infinities
    return f"holds NaN or infinity (in {expected.dtype})" if wrong.any() else None


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else f"of shape {tuple(shape)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
