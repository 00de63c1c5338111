"""The patches of images as rows of a matrix, and images as the sums of such rows: each is the other's transpose.

Both are operations of their own in a traced graph, where `use_kernels` finds them beside a product; what it leaves
there is written out by `expand`. Images are channels last, (images, height, width, channels).
"""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import Library
from torch.nn import functional

Pair = tuple[int, int]


class Window(NamedTuple):
    """What moves over images: every field is (vertical, horizontal)."""

    size: Pair
    stride: Pair
    dilation: Pair
    padding: Pair

    @property
    def numbers(self) -> list[int]:
        """All eight, as operations take them."""
        return [number for pair in self for number in pair]

    @classmethod
    def of(cls, numbers: list[int]) -> "Window":
        """The window that has these `numbers`."""
        return cls(*zip(numbers[::2], numbers[1::2], strict=True))

    def places(self, height: int, width: int) -> Pair:
        """How many places it has on an image."""
        down, across = (
            (extent + 2 * padding - dilation * (size - 1) - 1) // stride + 1
            for extent, size, stride, dilation, padding in zip((height, width), *self, strict=True)
        )
        return down, across


_library = Library("lightning_meta", "FRAGMENT")
_library.define("patches(Tensor images, int[] window) -> Tensor")
_library.define("images(Tensor patches, int[] shape, int[] window) -> Tensor")


@torch.library.impl(_library, "patches", "CompositeExplicitAutograd")
def patches_of(images: Tensor, window: list[int]) -> Tensor:
    """(images, height, width, channels) to (images * places of the window, window * channels)."""
    (height, width), (down, across), (dilation_down, dilation_across), (rows, columns) = Window.of(window)
    padded = functional.pad(images, (0, 0, columns, columns, rows, rows))
    wide = padded.unfold(1, dilation_down * (height - 1) + 1, down)[..., ::dilation_down]
    wide = wide.unfold(2, dilation_across * (width - 1) + 1, across)[..., ::dilation_across]
    # From (images, places down, places across, channels, height and width of the window).
    return wide.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * images.shape[-1])


@torch.library.impl(_library, "images", "CompositeExplicitAutograd")
def images_of(patches: Tensor, shape: list[int], window: list[int]) -> Tensor:
    """Images of that shape, of which every pixel is the sum of its copies among the patches."""
    moved = Window.of(window)
    (images, height, width, channels), (down, across), (top, left) = shape, moved.stride, moved.padding
    taps = patches.view(images, *moved.places(height, width), *moved.size, channels)
    # Pixels whose places agree modulo the stride have the same taps, so that shifted planes add up.
    extent = height + 2 * top, width + 2 * left
    planes = [_plane(taps, phase, extent, moved) for phase in product(range(down), range(across))]
    apart = torch.stack(planes, 3).unflatten(3, moved.stride)  # (images, height, width, down, across, channels)
    together = apart.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
    return together[:, top : top + height, left : left + width]


def _plane(taps: Tensor, phase: Pair, extent: Pair, window: Window) -> Tensor:
    """The padded pixels (row, column) that are ``phase`` modulo the stride, (images, height, width, channels)."""
    size = [-(-n // stride) for n, stride in zip(extent, window.stride, strict=True)]
    plane = taps.new_zeros(taps.shape[0], *size, taps.shape[-1])
    for tap in product(*map(range, window.size)):
        place = [step * dilation for step, dilation in zip(tap, window.dilation, strict=True)]
        if phase == tuple(n % stride for n, stride in zip(place, window.stride, strict=True)):
            shift = [n // stride for n, stride in zip(place, window.stride, strict=True)]
            margins = [
                side
                for before, whole, part in zip(reversed(shift), reversed(size), reversed(taps.shape[1:3]), strict=True)
                for side in (before, whole - before - part)
            ]
            plane = plane + functional.pad(taps[:, :, :, tap[0], tap[1]], [0, 0, *margins])
    return plane


PATCHES, IMAGES = torch.ops.lightning_meta.patches.default, torch.ops.lightning_meta.images.default
_WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {PATCHES: patches_of, IMAGES: images_of}


def expand(graph: GraphModule) -> None:
    """Write both operations out, as those that a compiler fuses with what surrounds them."""
    for node in graph.graph.nodes:
        if node.target in _WRITTEN_OUT:
            tensor, *numbers = node.args
            written_out = _WRITTEN_OUT[node.target]
            steps = make_fx(lambda x: written_out(x, *numbers))(tensor.meta["val"])  # noqa: B023
            (placeholder,) = steps.graph.find_nodes(op="placeholder")
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.graph_copy(steps.graph, {placeholder: tensor}))
            graph.graph.erase_node(node)
    graph.recompile()
