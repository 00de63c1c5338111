"""Few-shot classification of your own arrays: feature vectors, time series, images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_meta.data.drawing.data_module import check_at_least, check_seeds
from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes, Rotations, split_by_seed
from lightning_meta.data.files.class_splits import named_splits, splits_setting
from lightning_meta.data.labels import array_of_labels, check_labels
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

_FLOATS = (torch.float16, torch.float32, torch.float64)  # that NumPy has
_NUMBER_WORDS = "number the words and give those numbers to a backbone with an nn.Embedding"


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
            ``.npy`` file. Floats and booleans are used unchanged (in float32), uint8 is scaled to [0, 1], and other
            integers stay what they are (in int64), as an ``nn.Embedding`` takes them.
        y: the class of every example, shape (examples,), integers or strings; likewise.
        validation_classes: classes to validate on; 0 for no validation.
        test_classes: classes to test on.
        split_seed: seed of the split of the classes, which is the same for every ``seed``.
        split_file: names the classes of each split instead, as in `FolderEpisodes`.
        splits: the same without a file, as in `FolderEpisodes`.
    """

    x: str | Path | SupportsArray
    y: str | Path | SupportsArray
    validation_classes: int = 0
    test_classes: int = 0
    split_seed: int = 0
    split_file: str | None = None
    splits: dict[str, list[str] | str | Any] | None = None
    rotations: Rotations = field(default="none", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, validation_classes=self.validation_classes, test_classes=self.test_classes)
        check_seeds(split_seed=self.split_seed)
        self._splits_setting = splits_setting(self.split_file, self.splits)

    def has_validation(self) -> bool:
        """Whether there are classes to validate on and ``validation_tasks`` is above 0."""
        if self._splits_setting is not None:
            return super().has_validation() and bool(self._class_splits(self._labels()[0])["validation"].numel())
        return self.validation_classes > 0 and super().has_validation()

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages); whatever is not held out is trained on."""
        if self._splits_setting is not None:
            return f"name more of them in {self._splits_setting}"
        if split == "train" and self.validation_classes + self.test_classes > 0:
            return "lower data.validation_classes or data.test_classes"
        return super().more_classes(split) if split == "train" else f"raise data.{split}_classes"

    def load(self) -> ClassImages:
        """All examples, float32 or uint8 (examples, ...), by class in the order of the sorted labels.

        Raises:
            MetaLearningError: an array is missing, has the wrong shape or type, or holds values that are not finite.
        """
        x, (labels, places, counts) = _check_examples(_read_array("x", self.x)), self._labels()
        if len(x) != len(places):
            raise MetaLearningError(
                f"data.x holds {len(x)} examples, but data.y {len(places)} labels: give each example one label"
            )
        return ClassImages(
            torch.from_numpy(x[places.argsort(kind="stable")]),
            torch.from_numpy(counts.cumsum() - counts),
            torch.from_numpy(counts),
            self._class_splits(labels),
            names=[str(label) for label in labels],
        )

    def _labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The classes, sorted, the place of each example's among them, and how many examples each has."""
        labels, places, counts = np.unique(
            check_labels(_read_array("y", self.y)), return_inverse=True, return_counts=True
        )
        return labels, places, counts

    def _class_splits(self, labels: np.ndarray) -> dict[Split, Tensor]:
        """The places of every split's classes."""
        if self._splits_setting is not None:
            if self.validation_classes or self.test_classes:
                raise MetaLearningError(
                    f"data.validation_classes is {self.validation_classes} and data.test_classes is "
                    f"{self.test_classes}, but {self._splits_setting} splits the classes already: leave them out"
                )
            names = [str(label) for label in labels]
            named = named_splits(self.split_file, self.splits, names, "data.y holds")
            places = {name: place for place, name in enumerate(names)}
            return {
                split: torch.tensor([places[name] for name in of_split], dtype=torch.int64)
                for split, of_split in named.items()
            }
        held_out = self.validation_classes, self.test_classes
        if sum(held_out) >= len(labels):
            raise MetaLearningError(
                f"data.validation_classes is {held_out[0]} and data.test_classes is {held_out[1]}, but data.y holds "
                f"{len(labels)} classes, and some must be left to train on: lower them"
            )
        return split_by_seed(len(labels), *held_out, self.split_seed)


def _read_array(name: str, given: str | Path | SupportsArray) -> np.ndarray:
    """The given array; a file is read without unpickling objects, which could run code."""
    if isinstance(given, Tensor):
        return tensor_to_array(f"data.{name}", given)
    if hasattr(given, "toarray"):  # a sparse matrix of SciPy
        return np.asarray(given.toarray())
    if np.ma.is_masked(given):
        raise MetaLearningError(
            f"data.{name} is a masked array, whose hidden values would be used: fill them in, as with {name}.filled(0)"
        )
    if not isinstance(given, str | Path):
        try:
            given = arrays_of_tensors(f"data.{name}", given)
            return array_of_labels(given) if name == "y" and not hasattr(given, "__array__") else np.asarray(given)
        except (ValueError, TypeError, RuntimeError) as error:
            raise MetaLearningError(
                f"data.{name} cannot be made an array ({error}): give examples of one shape, padded where they differ"
            ) from error
    path = Path(given).expanduser()
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise ValueError("it is not a regular file")
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


def tensor_to_array(name: str, given: Tensor) -> np.ndarray:
    """The values of a tensor; those of a float type that NumPy lacks in float32.

    Args:
        name: what to call it in errors, such as ``data.x``.
        given: of any layout, device and type, with or without a gradient.

    Raises:
        MetaLearningError: it holds no values, examples of several shapes, or bits without a value.
    """
    if given.is_meta:
        raise MetaLearningError(f"{name} is a tensor on the meta device, which holds no values: give one that does")
    if given.is_nested:
        raise MetaLearningError(
            f"{name} is a nested tensor, expected examples of one shape: pad them, as with "
            "torch.nested.to_padded_tensor(tensor, 0.0)"
        )
    try:
        given = given.dequantize() if given.is_quantized else given.to_dense()
        if given.is_complex():
            given = given.to(torch.promote_types(given.dtype, torch.complex64))  # NumPy has no complex32
        elif given.is_floating_point() and given.dtype not in _FLOATS:
            given = given.float()
        return given.numpy(force=True)  # conjugated and negated only now
    except (TypeError, RuntimeError) as error:
        raise MetaLearningError(
            f"{name} is a tensor of {given.dtype}, whose values NumPy cannot hold: convert it, as with tensor.float()"
        ) from error


def arrays_of_tensors(name: str, given: Any) -> Any:
    """A list or tuple with arrays in the place of its tensors; anything else as it is.

    Raises:
        MetaLearningError: see `tensor_to_array`.
    """
    if not isinstance(given, list | tuple):
        return given
    return [tensor_to_array(name, row) if isinstance(row, Tensor) else row for row in given]


def _check_examples(x: np.ndarray) -> np.ndarray:
    """Return the examples as float32, uint8 or int64, or refuse them."""
    if x.ndim < 2:
        raise MetaLearningError(
            f"data.x has shape {x.shape}, expected (examples, ...), such as (examples, features): give each "
            "example one array of the same shape, as with x[:, None] for single numbers"
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype == np.uint64 and x.size and x.max() > np.iinfo(np.int64).max:
        raise MetaLearningError(
            f"data.x holds {x.max()}, more than a 64-bit integer of PyTorch holds: number the tokens from 0"
        )
    if x.dtype.kind in "iu":
        return x.astype(np.int64)
    if x.dtype.kind not in "fb":
        remedy = {
            "c": "give two channels, as with numpy.stack([x.real, x.imag], 1)",
            "U": _NUMBER_WORDS,
            "S": _NUMBER_WORDS,
            "T": _NUMBER_WORDS,
        }.get(x.dtype.kind, "convert it, as with x.astype('float32')")
        raise MetaLearningError(
            f"data.x holds {x.dtype}, expected floats, uint8 for pixels in 0..255 or integers for an "
            f"nn.Embedding: {remedy}"
        )
    with np.errstate(over="ignore"):  # infinities are refused below
        x = x.astype(np.float32, copy=False)
    wrong = ~np.isfinite(x).all(tuple(range(1, x.ndim)))
    if wrong.any():
        raise MetaLearningError(
            f"data.x holds values that are not finite (in float32) in {wrong.sum()} of its examples, the first of "
            f"which is example {wrong.argmax()}: fill them in or leave those examples out"
        )
    if x.ndim == 4 and x.size and x.min() >= 0 and 16 < x.max() <= 255:
        rank_zero_warn(
            f"data.x holds floats in {x.min():g}..{x.max():g}, used unchanged: if they are pixels, give "
            "x.astype('uint8'), which is scaled to 0..1"
        )
    return x
