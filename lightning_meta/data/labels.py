"""The classes of examples, as arrays of one integer or string for each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_meta.errors import MetaLearningError

_KINDS = bool, int, str, bytes  # the first that a label is an instance of; a bool is an int, too


def array_of_labels(given: Any) -> np.ndarray:
    """Labels of a list, or of another sequence, as an array in which those that differ do so.

    NumPy's arrays of strings drop NULs at the end and cut the names of enumerations, so strings stay objects, and so
    do labels of several kinds that it would make one string, such as 1 and "1".
    """
    array = np.asarray(given)
    if array.dtype.kind not in "US" or array.ndim != 1:
        return array
    labels = [label.item() if isinstance(label, np.ndarray) else label for label in given]
    if {_kind(label) for label in labels} in ({str}, {bytes}) or len(set(labels)) > len(np.unique(array)):
        return _objects(labels)
    return array


def check_labels(y: np.ndarray) -> np.ndarray:
    """Return the labels, one integer or string for each example, or refuse them.

    Raises:
        MetaLearningError: they have another shape or type, or are bytes that are not text.
    """
    if y.dtype.kind == "T":  # NumPy's strings of any length, some of which may be missing
        y = y.astype(object)
    if y.dtype.kind == "O" and y.ndim == 1:  # as pandas holds strings
        y = plain_labels(y)
        if {type(label) for label in y} in ({int}, {str}):  # which no other array holds, but names all the same
            return y
    if y.ndim == 1 and (y.dtype.kind == "S" or (len(y) and all(isinstance(label, bytes) for label in y))):
        try:
            return _strings([bytes.decode(label) for label in y])
        except UnicodeDecodeError as error:
            raise MetaLearningError(
                f"data.y holds bytes that are not text in UTF-8 ({error.object[:40]!r}): decode them, as with "
                "numpy.char.decode(y, 'latin-1')"
            ) from error
    if y.ndim == 1 and y.dtype.kind in "biuU":
        return y
    if y.ndim == 2 and y.shape[1] == 1:
        remedy = "give y[:, 0]"
    elif y.ndim == 2 and y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        remedy = "these are one-hot, so give y.argmax(1)"
    elif y.dtype.kind == "f" and np.isnan(y).any():
        remedy = f"{np.isnan(y).sum()} labels are missing (NaN), so leave those examples out"
    elif y.dtype.kind == "f" and (y == y.round()).all():
        remedy = "convert it, as with y.astype('int64')"
    elif y.dtype.kind == "f":
        remedy = "real values are targets of a regression, which needs a data module of your own (docs/data.md)"
    else:
        remedy = "convert it, as with y.astype('str'), and leave out examples without a label"
    raise MetaLearningError(
        f"data.y holds {y.dtype} of shape {y.shape}, expected integers or strings of shape (examples,): {remedy}"
    )


def plain_labels(y: np.ndarray) -> np.ndarray:
    """Labels that are objects of one kind as strings, bytes, booleans or integers of NumPy, where it has an equal.

    Strings and bytes that end with NUL, and integers beyond 64 bits, stay Python's own; labels of other kinds or of
    several stay as they are. A member of an enumeration that is a string or an integer is its value.
    """
    kinds = {_kind(label) for label in y}
    if kinds == {str}:
        return _strings([str.__str__(label) for label in y])
    if kinds == {bytes}:
        return _objects(y) if any(label.endswith(b"\0") for label in y) else y.astype(bytes)
    if kinds == {bool}:
        return y.astype(bool)
    if kinds == {int}:
        whole = _objects([int(label) for label in y])
        return whole.astype(np.int64) if abs(whole).max() < 2**63 else whole
    return y


def _kind(label: object) -> type:
    """The type of Python whose values a label is one of, also where it is of a subclass or of NumPy."""
    if isinstance(label, np.bool_):
        return bool
    if isinstance(label, np.integer):
        return int
    return next((kind for kind in _KINDS if isinstance(label, kind)), type(label))


def _strings(labels: list[str]) -> np.ndarray:
    """An array of strings, which are objects where NumPy would drop a NUL at their end."""
    return _objects(labels) if any(label.endswith("\0") for label in labels) else np.array(labels, str)


def _objects(labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.empty(len(labels), object)
    array[:] = labels
    return array
