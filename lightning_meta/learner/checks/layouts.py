"""What to do about inputs that a network cannot take, by their shape and type."""

from torch import Tensor

_CHANNELS = (1, 3, 4)


def layout_remedy(x: Tensor, error: Exception) -> str:
    """The remedy that fits these inputs, shape (rows, ...), and what the network said of them."""
    if "Embedding" in str(error) or "indices" in str(error):
        return "Give token ids as integers, as with data.x.astype('int64')"
    if isinstance(error, IndexError):
        return f"Give the embedding as many entries as there are token ids, the largest being {int(x.max())}"
    if not x.is_floating_point():
        return "Whole numbers are token ids of an nn.Embedding: give pixels as uint8, and other numbers as float32"
    if x.dim() == 3:
        return "If these are images, give them a channel, as with data.x[:, None]; else set the backbone's inputs"
    if x.dim() == 4 and x.shape[-1] in _CHANNELS and x.shape[1] not in _CHANNELS:
        return "The channels are last: put them first, as with numpy.moveaxis(data.x, -1, 1)"
    return "Set the backbone's channels, image size or inputs to match"
