"""The linear layer at the end of a network, and the features that it is given."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.running import at_least_float32, run_module
from lightning_meta.params import Params


class LinearHead:
    """Cuts a network in two: its last layer, the head, and everything before, the body.

    Args:
        backbone: a network whose last layer, in the order of its modules, is an ``nn.Linear``. Whether that is what it
            computes last is only seen when it runs, see `lightning_meta.learner.checks.backbone.check_cut`.

    Raises:
        MetaLearningError: it is another layer, or shares its weights.
    """

    def __init__(self, backbone: nn.Module) -> None:
        name, layer = _last_layer(backbone)
        if not isinstance(layer, nn.Linear):
            raise MetaLearningError(
                f"model.backbone {type(backbone).__name__} ends with {type(layer).__name__} at {name or 'its root'}, "
                "expected a torch.nn.Linear: this algorithm treats the last layer apart from the features before it"
            )
        names = dict(backbone.named_parameters())
        shared = [key for key, _ in layer.named_parameters() if (f"{name}.{key}" if name else key) not in names]
        if shared:
            raise MetaLearningError(
                f"model.backbone {type(backbone).__name__} shares the {shared[0]} of its last layer, {name}, with "
                "another: give that layer its own, since this algorithm treats it apart from the features before it"
            )
        self.name, self.in_features = name, layer.in_features
        self._start = f"{name}." if name else ""
        self._backbone, self._layer = backbone, layer

    @property
    def out_features(self) -> int:
        """Outputs of the layer."""
        return self._layer.out_features

    def of(self, weights: Params) -> Params:
        """The head's weights, by their names in the network."""
        return {name: tensor for name, tensor in weights.items() if name.startswith(self._start)}

    def body(self, weights: Params) -> Params:
        """All other weights."""
        return {name: tensor for name, tensor in weights.items() if not name.startswith(self._start)}

    def zeros(self, outputs: int | None = None) -> Params:
        """Weights of a new head, all zero, also where the network's own one is frozen.

        Args:
            outputs: of the new head; as many as the network's own has when None.
        """
        rows = self.out_features if outputs is None else outputs
        own = self._layer.named_parameters()
        return {f"{self._start}{name}": tensor.detach().new_zeros(rows, *tensor.shape[1:]) for name, tensor in own}

    def resize(self, weights: Params) -> None:
        """Make room for other weights of the network whose head has more outputs or fewer; its own are lost then."""
        for name, parameter in self._layer.named_parameters():
            other = weights.get(f"{self._start}{name}")
            if other is not None and other.shape[1:] == parameter.shape[1:] and len(other) != len(parameter):
                parameter.data = parameter.data.new_zeros(other.shape)
                self._layer.out_features = len(other)

    def features(self, weights: Params, x: Tensor) -> Tensor:
        """What the head is given for ``x`` of shape (rows, ...), (rows, features), in float32 at least.

        Args:
            weights: of the whole network.
            x: inputs of the network.
        """
        with self.watched() as features:
            run_module(self._backbone, weights, x)
        return at_least_float32(features[-1])

    def outputs(self, weights: Params, features: Tensor) -> Tensor:
        """What the head makes of features, (rows, outputs), in float32 at least.

        Args:
            weights: of the head, among which may be others.
            features: (rows, features).
        """
        own = {name.removeprefix(self._start): tensor for name, tensor in self.of(weights).items()}
        return run_module(self._layer, own, features.to(next(self._layer.parameters()).dtype))

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Within it, what the head is given whenever the network runs."""
        features: list[Tensor] = []

        def note(layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
            features.append(inputs[0] if inputs else keywords["input"])

        handle = self._layer.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield features
        finally:
            handle.remove()


def ends_with_linear(backbone: nn.Module) -> bool:
    """Whether the last layer, in the order of the modules, is an ``nn.Linear``, so that there is a head."""
    return isinstance(_last_layer(backbone)[1], nn.Linear)


def _last_layer(backbone: nn.Module) -> tuple[str, nn.Module]:
    layers = [(name, part) for name, part in backbone.named_modules() if not list(part.children())]
    return [("", backbone), *(item for item in layers if not _does_nothing(item[1]))][-1]


def _does_nothing(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Identity) or (isinstance(layer, nn.Dropout) and layer.p == 0)
