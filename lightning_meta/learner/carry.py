"""What outlives a meta-step without being a parameter."""

from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class CarryBuffers(nn.Module):
    """A pytree of tensors kept as buffers, so that it moves with the module and is part of its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self._spec = pytree.tree_flatten({})[1]

    def tree(self) -> Any:
        """The tensors in the structure that `assign` was given."""
        return pytree.tree_unflatten(list(self.buffers()), self._spec)

    def assign(self, tree: Any) -> None:
        """Take over the values of ``tree``, and its structure when it is the first."""
        leaves, self._spec = pytree.tree_flatten(tree)
        buffers = list(self.buffers())
        for place, leaf in enumerate(leaves):
            if buffers:
                buffers[place].copy_(leaf)
            else:
                self.register_buffer(f"leaf_{place}", leaf.clone())

    def store(self, tree: Any, trainer: Trainer) -> None:
        """Take over the mean of ``tree`` over ranks; nothing where no structure was assigned before."""
        if list(self.buffers()):
            self.assign(_mean_over_ranks(tree, trainer.strategy.reduce) if trainer.world_size > 1 else tree)


def _mean_over_ranks(tree: Any, reduce: Any) -> Any:
    """``tree`` with every leaf replaced by its mean over ranks, in one reduction."""
    leaves, spec = pytree.tree_flatten(tree)
    mean: Tensor = reduce(nn.utils.parameters_to_vector(leaves), reduce_op="mean")
    pieces = mean.split([leaf.numel() for leaf in leaves])
    return pytree.tree_unflatten([piece.view_as(leaf) for piece, leaf in zip(pieces, leaves, strict=True)], spec)
