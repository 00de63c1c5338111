"""Networks of torchvision and others, started from weights in a file."""

import pickle
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
        MetaLearningError: the network does not end with an ``nn.Linear``, or the file does not hold its weights.
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
        moments = None if mean is None else torch.tensor([tuple(mean), tuple(deviation)])[..., None, None]
        self.register_buffer("moments", moments, persistent=False)  # settings, and no weights

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (rows, outputs) for images ``x``, (rows, channels, height, width)."""
        if isinstance(self.moments, Tensor):
            mean, deviation = self.moments
            x = (x - mean) / deviation
        return self.network(x)


def _last_layer(network: nn.Module) -> tuple[str, nn.Linear]:
    layers = [(name, part) for name, part in network.named_modules() if not list(part.children())]
    name, last = [item for item in layers if not isinstance(item[1], (*_RANDOM, nn.Identity))][-1]
    if not isinstance(last, nn.Linear) or not name:
        raise MetaLearningError(
            f"model.backbone.network {type(network).__name__} ends with {type(last).__name__} at {name or 'its root'}, "
            "expected a torch.nn.Linear, whose place the head for the ways takes"
        )
    return name, last


def _load(network: nn.Module, path: str, except_for: str) -> None:
    """Give the network the weights of a file, but those whose names begin with ``except_for``."""
    setting = f"model.backbone.weights is {path}"
    try:
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe may never end
            raise OSError("it is not a regular file")
        if Path(path).suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
            state = state.get("state_dict", state)
        found = {name: tensor.shape for name, tensor in state.items()}
    except FileNotFoundError:
        raise MetaLearningError(
            f"{setting}, but there is no such file: nothing is downloaded, so save the network's state_dict there, or "
            "set it to null"
        ) from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, AttributeError) as error:
        raise MetaLearningError(f"{setting}, which cannot be read as a state_dict: {_first_line(error)}") from error
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in (name for name in (*expected, *found) if not name.startswith(except_for)):
        if expected.get(name) != found.get(name) and not name.endswith("num_batches_tracked"):  # which old files lack
            raise MetaLearningError(
                f"{setting}, whose {name} is {_shape(found.get(name))}, but in {type(network).__name__} it is "
                f"{_shape(expected.get(name))}: give weights of this very network, and its settings as they were"
            )
    network.load_state_dict({name: state[name] for name in found if not name.startswith(except_for)}, strict=False)


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else f"of shape {tuple(shape)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
