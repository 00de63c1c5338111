"""Few-shot classification of your own arrays: feature vectors, time series, images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes, Rotations, split_by_seed
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError


class SupportsArray(Protocol):
    """An array of NumPy or a tensor of PyTorch."""

    def __array__(self) -> np.ndarray:
        """The values as an array."""


@dataclass(kw_only=True, eq=False)
class ArrayEpisodes(ImageEpisodes):
    """Few-shot tasks from an array of examples and an array of their classes.

    The classes are shuffled and split: some are tested on, some validated on, and the rest is trained on.

    Args:
        x: the examples, shape (examples, ...) with at least two dimensions; a NumPy array, a tensor, or the path of a
            ``.npy`` file. Floats are used unchanged (in float32), uint8 is scaled to [0, 1].
        y: the class of every example, shape (examples,), integers or strings; likewise.
        validation_classes: classes to validate on; 0 for no validation.
        test_classes: classes to test on.
        split_seed: seed of the split of the classes, which is the same for every ``seed``.
    """

    x: str | Path | SupportsArray
    y: str | Path | SupportsArray
    validation_classes: int
    test_classes: int
    split_seed: int = 0
    rotations: Rotations = field(default="none", init=False)

    def has_validation(self) -> bool:
        """Whether ``validation_classes`` and ``validation_tasks`` are both above 0."""
        return self.validation_classes > 0 and super().has_validation()

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages); whatever is not held out is trained on."""
        if split == "train" and self.validation_classes + self.test_classes > 0:
            return "lower data.validation_classes or data.test_classes"
        return super().more_classes(split) if split == "train" else f"raise data.{split}_classes"

    def load(self) -> ClassImages:
        """All examples, float32 or uint8 (examples, ...), by class in the order of the sorted labels.

        Raises:
            MetaLearningError: an array is missing, has the wrong shape or type, or holds values that are not finite.
        """
        x, y = _check_examples(_read_array("x", self.x)), _check_labels(_read_array("y", self.y))
        if len(x) != len(y):
            raise MetaLearningError(
                f"data.x holds {len(x)} examples, but data.y {len(y)} labels: give each example one label"
            )
        labels, places, counts = np.unique(y, return_inverse=True, return_counts=True)
        held_out = self.validation_classes, self.test_classes
        if min(held_out) < 0 or sum(held_out) >= len(labels):
            raise MetaLearningError(
                f"data.validation_classes is {held_out[0]} and data.test_classes is {held_out[1]}, but data.y holds "
                f"{len(labels)} classes, and some must be left to train on: lower them"
            )
        return ClassImages(
            torch.from_numpy(x[places.argsort(kind="stable")]),
            torch.from_numpy(counts.cumsum() - counts),
            torch.from_numpy(counts),
            split_by_seed(len(labels), *held_out, self.split_seed),
            names=[str(label) for label in labels],
        )


def _read_array(name: str, given: str | Path | SupportsArray) -> np.ndarray:
    """The given array; a file is read without unpickling objects, which could run code."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        return (given.float() if given.dtype == torch.bfloat16 else given).numpy()  # NumPy has no bfloat16
    if not isinstance(given, str | Path):
        return np.asarray(given)
    path = Path(given).expanduser()
    try:
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
    except FileNotFoundError:
        raise MetaLearningError(f"data.{name} is {given}, but there is no such file: name a .npy file") from None
    except Exception as error:  # a damaged file fails in many ways, and all have the same remedy
        raise MetaLearningError(
            f"data.{name} is {given}, which cannot be read as a .npy file of numbers or strings: {error}. Write it "
            "with numpy.save(path, array), of an array whose dtype is not object"
        ) from error
    return array


def _check_examples(x: np.ndarray) -> np.ndarray:
    """Return the examples as float32 or uint8, or refuse them."""
    if x.ndim < 2:
        raise MetaLearningError(f"data.x has shape {x.shape}, expected (examples, ...), such as (examples, features)")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise MetaLearningError(
            f"data.x holds {x.dtype}, expected floats, or uint8 for pixels in 0..255: convert it, as with "
            "x.astype('float32')"
        )
    with np.errstate(over="ignore"):  # infinities are refused below
        x = x.astype(np.float32, copy=False)
    wrong = ~np.isfinite(x).all(tuple(range(1, x.ndim)))
    if wrong.any():
        raise MetaLearningError(
            f"data.x holds values that are not finite (in float32) in {wrong.sum()} of its examples, the first of "
            f"which is example {wrong.argmax()}: fill them in or leave those examples out"
        )
    return x


def _check_labels(y: np.ndarray) -> np.ndarray:
    """Return the labels, one integer or string for each example, or refuse them."""
    if y.ndim != 1 or y.dtype.kind not in "biuUS":
        raise MetaLearningError(
            f"data.y holds {y.dtype} of shape {y.shape}, expected integers or strings of shape (examples,): "
            "convert it, as with y.astype('int64') or y.astype('str')"
        )
    return y
