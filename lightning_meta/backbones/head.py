"""The linear layer at the end of a network, and the features that it is given."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.errors import MetaLearningError
from lightning_meta.params import Params

_NOTHING = nn.Identity, nn.Dropout  # layers that do nothing; a dropout that drops is refused elsewhere


class LinearHead:
    """Cuts the weights of a network in two: its last layer, the head, and everything before, the body.

    Args:
        backbone: a network whose last layer, in the order of its modules, is an ``nn.Linear``; an activation after it
            would go unseen when the head is applied by itself.

    Raises:
        MetaLearningError: it is another layer.
    """

    def __init__(self, backbone: nn.Module) -> None:
        layers = [(name, part) for name, part in backbone.named_modules() if not list(part.children())]
        name, layer = [("", backbone), *(item for item in layers if not isinstance(item[1], _NOTHING))][-1]
        if not isinstance(layer, nn.Linear):
            raise MetaLearningError(
                f"model.backbone {type(backbone).__name__} ends with {type(layer).__name__} at {name or 'its root'}, "
                "expected a torch.nn.Linear: this algorithm treats the last layer apart from the features before it"
            )
        self.features, self.outputs = layer.in_features, layer.out_features
        self._start = f"{name}." if name else ""
        self._bias = layer.bias is not None

    def of(self, weights: Params) -> Params:
        """The head's weights, by their names in the network."""
        return {name: tensor for name, tensor in weights.items() if name.startswith(self._start)}

    def body(self, weights: Params) -> Params:
        """All other weights."""
        return {name: tensor for name, tensor in weights.items() if not name.startswith(self._start)}

    def without(self, weights: Params) -> Params:
        """Weights with which the network gives its features: the identity in the head's place."""
        like = next(iter(weights.values()))  # the head itself may be frozen, and then is not among them
        identity = {f"{self._start}weight": torch.eye(self.features, dtype=like.dtype, device=like.device)}
        return weights | identity | ({f"{self._start}bias": like.new_zeros(self.features)} if self._bias else {})

    def linear(self, head: Params, features: Tensor) -> Tensor:
        """Outputs of the head for ``features`` of shape (rows, features)."""
        return functional.linear(features, head[f"{self._start}weight"], head.get(f"{self._start}bias"))
