"""Pickles of published data sets, read without running any code that they hold.

A pickle may name any function and have it called. This reader knows the few names that arrays, numbers and containers
need, each exactly, and has functions of its own under them: NumPy's would let a pickle lie about an array's memory, for
instance with a dtype that holds objects and says that it does not. Nothing that a pickle does outlives its load.
"""

import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lightning_meta.data.files.downloads import is_web_page
from lightning_meta.errors import MetaLearningError


def load_pickle(title: str, path: Path) -> Any:
    """What a pickle of arrays, numbers, strings, bytes, dicts, lists and tuples holds; strings of Python 2 as Latin-1.

    Args:
        title: the data set, for messages.
        path: of the pickle.

    Raises:
        MetaLearningError: the file cannot be read, is a web page, is damaged, or names anything else.
    """
    if path.is_fifo():  # reading it may never end
        raise damaged(title, path, "it is a pipe")
    try:
        if is_web_page(path):
            raise MetaLearningError(
                f"{title}: {path} is a web page, not the data: the download asked for a confirmation or the server "
                "answered with an error. Delete it and download the file again, in a browser if need be"
            )
        with path.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except MetaLearningError:
        raise
    except OSError as error:
        raise MetaLearningError(
            f"{title}: {path} cannot be read ({type(error).__name__}: {error.strerror}): make it a file that you may "
            "read, or delete it and download it again with --data.download true"
        ) from error
    except _ForbiddenError as error:
        raise MetaLearningError(
            f"{title}: {path} asks for {error}, which no file of images and labels needs and which could run a program "
            "on this machine: it was not called. Delete the file and download it again from a source that you trust"
        ) from error
    except Exception as error:  # a damaged pickle fails in many ways, and all have the same remedy
        raise damaged(title, path, f"{type(error).__name__}: {error}") from error


@contextmanager
def pickles_are_data(title: str) -> Iterator[None]:
    """Have `load_pickle` read whatever other code of this process reads with ``pickle.load`` in this block.

    Args:
        title: the data set, for messages.
    """

    class Reader:
        def __init__(self, file: BinaryIO, **options: Any) -> None:
            self.path = Path(file.name)

        def load(self) -> Any:
            return load_pickle(title, self.path)

    def load(file: BinaryIO, **options: Any) -> Any:
        return Reader(file).load()

    readers = {"load": load, "Unpickler": Reader, "_Unpickler": Reader}
    originals = {name: getattr(pickle, name) for name in readers}
    try:
        for name, reader in readers.items():
            setattr(pickle, name, reader)
        yield
    finally:
        for name, original in originals.items():
            setattr(pickle, name, original)


def damaged(title: str, path: Path, what: str) -> MetaLearningError:
    """The error for a file with unexpected content."""
    return MetaLearningError(
        f"{title}: {path} is damaged, incomplete or another data set's ({what}): delete it and download it again, with "
        "--data.download true or from where you have it"
    )


class _ForbiddenError(Exception):
    """A name that a pickle may not use."""


# Python's own, which takes up to ten times as long: C's memo grows to whatever index a file names.
class _Unpickler(pickle._Unpickler):
    dispatch = {  # noqa: RUF012  # as bytes, for Python clears a bytearray of whatever length a file names
        **pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _ForbiddenError(f"{module}.{name}")
        return _KNOWN[module, name]


class _Type:
    """A dtype of which only kind, size and byte order are believed."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """The dtype itself: of numbers, booleans, strings, bytes or whole objects."""
        if not re.fullmatch("[biufSUO][0-9]{0,4}", self.code) or self.order not in "|<>=":
            raise ValueError(f"unexpected array of {self.code!r}")
        return np.dtype(self.code) if self.order in "|=" else np.dtype(f"{self.order}{self.code}")


class _Array(np.ndarray):
    """An array that takes its content from a pickle, with a dtype of its own making."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        super().__setstate__((1, shape, kind.numpy(), bool(fortran), content))  # compares sizes


def _frozen(function: Callable[..., Any]) -> Any:
    """The function as an object without attributes: a pickle could set those of a function, such as its defaults."""
    return type("Frozen", (), {"__slots__": (), "__call__": staticmethod(function)})()


@_frozen
def _type(code: str, align: bool = False, copy: bool = True) -> _Type:
    return _Type(code)


@_frozen
def _empty(kind: object, shape: object, code: object) -> np.ndarray:
    return _Array((0,), np.uint8)


@_frozen
def _scalar(kind: _Type, content: str | bytes) -> Any:
    return np.frombuffer(_bytes(content), kind.numpy(), 1)[0]  # refuses objects


@_frozen
def _from_buffer(content: Any, kind: _Type, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    array = np.frombuffer(content, kind.numpy())  # refuses objects
    return array.reshape(shape, order=order) if axes is None else array.reshape(shape).transpose(axes)  # type: ignore


@_frozen
def _bytes(text: str | bytes, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("unexpected encoding")  # not which: nested lists can be long
    return text.encode("latin1") if isinstance(text, str) else text


@_frozen
def _no_bytes() -> bytes:
    return b""


@_frozen
def _default_dict(factory: object) -> defaultdict[Any, Any]:
    return defaultdict({"list": list, "int": int}[factory])  # type: ignore[index]


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _type,
    ("numpy", "ndarray"): "ndarray",  # named as an argument, never called
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _no_bytes,  # how old protocols write it
    ("builtins", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "list"): "list",  # likewise, of a defaultdict
    ("builtins", "int"): "int",
    ("__builtin__", "list"): "list",
    ("__builtin__", "int"): "int",
    ("__builtin__", "long"): "int",
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        (f"{_core}.multiarray", "_reconstruct"): _empty,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _from_buffer,
    }
