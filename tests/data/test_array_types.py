"""Types that arrays, tensors and labels may have: the same tasks for all, or what to give instead."""

import enum
import re
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lightning_meta.data import ArrayEpisodes
from lightning_meta.errors import MetaLearningError

PLACES = np.arange(8).repeat(3)
X = torch.arange(96).reshape(24, 4) % 16 - 7.5  # which every float type from float8_e4m3fn on holds


def episodes(x: Any, y: Any, **changes: Any) -> ArrayEpisodes:
    settings: dict[str, Any] = {"validation_classes": 2, "test_classes": 2, "ways": 2}
    return ArrayEpisodes(x=x, y=y, **settings | changes)


def objects(label: Callable[[int], Any]) -> np.ndarray:
    labels = np.empty(24, object)
    labels[:] = [label(int(place)) for place in PLACES]
    return labels


class Tree(str, enum.Enum):
    """Labels whose text, cut to the length of their values, is the same for all."""

    ASH, ELM = "a", "e"


class Height(enum.IntEnum):
    """Labels that are integers with names."""

    LOW, HIGH = 3, 7


class Named(str):
    """A string that shows another one."""

    def __str__(self) -> str:
        return "tree"


def series(labels: Sequence[Any]) -> np.ndarray:
    """Labels as pandas holds them."""
    array = np.empty(len(labels), object)
    array[:] = labels
    return array


DISTINCT: dict[str, tuple[list[Any], list[str]]] = {  # labels that NumPy's strings confuse, and the class of each
    "bytes that end with NUL": ([b"a", b"a\0", b"b", b"b\0"], ["a", "a\0", "b", "b\0"]),
    "strings that end with NUL": (["a", "", "a\0", "a\0\0"], ["a", "", "a\0", "a\0\0"]),
    "strings of NumPy that end with NUL": ([np.str_("a"), np.str_("a\0")], ["a", "a\0"]),
    "NUL within": (["a\0b", "a"], ["a\0b", "a"]),
    "an enumeration of strings": (list(Tree), ["a", "e"]),
    "an enumeration and its values": ([Tree.ELM, "a", "e"], ["e", "a", "e"]),
    "an enumeration of integers": (list(Height), ["3", "7"]),
    "strings that show others": ([Named("elm"), Named("ash")], ["elm", "ash"]),
}


@pytest.mark.parametrize("form", [list, tuple, series, deque])
@pytest.mark.parametrize("case", DISTINCT)
def test_labels_that_differ_are_different_classes(case: str, form: Any) -> None:
    labels, names = DISTINCT[case]
    x = np.arange(2 * len(labels), dtype=np.float32)[:, None]
    data = ArrayEpisodes(x=x, y=form(labels * 2), ways=2).data
    assert data.names == sorted(set(names))
    assert data.images[data.starts].flatten().tolist() == [names.index(name) for name in data.names]


def test_one_class_in_two_types_stays_one() -> None:
    assert episodes(X, [place if place % 2 else str(place) for place in PLACES.tolist()]).data.names == list("01234567")


LABELS: dict[str, tuple[Any, list[str]]] = {
    "integers beyond 64 bits": (objects(lambda place: 2**70 - place), [str(2**70 - 7 + place) for place in range(8)]),
    "a list of them": ([10**30 + place for place in PLACES.tolist()], [str(10**30 + place) for place in range(8)]),
    "integers of NumPy": (objects(np.int64), list("01234567")),
    "both kinds": (objects(lambda place: place if place % 2 else np.int16(place)), list("01234567")),
    "strings of NumPy": (objects(lambda place: np.str_(f"c{place}")), [f"c{place}" for place in range(8)]),
    "bytes": (np.char.encode(np.char.add("é", PLACES.astype(str)), "utf-8"), [f"é{place}" for place in range(8)]),
    "a list of bytes": ([b"c%d" % place for place in PLACES], [f"c{place}" for place in range(8)]),
    "objects of bytes": (objects(lambda place: b"c%d" % place), [f"c{place}" for place in range(8)]),
    "tensors": ([torch.tensor(place) for place in PLACES], list("01234567")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_every_type_name_the_classes(case: str) -> None:
    y, names = LABELS[case]
    data = episodes(X, y)
    assert data.data.names == names
    rows = data.data.images[data.data.starts[:, None] + torch.arange(3)]  # those of each class
    expected = X.reshape(8, 3, 4)
    assert torch.equal(rows, expected.flip(0) if case == "integers beyond 64 bits" else expected)


def test_booleans_in_objects_are_labels() -> None:
    data = episodes(X, objects(lambda place: bool(place % 2)), validation_classes=0, test_classes=0)
    assert data.data.names == ["False", "True"]


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (objects(lambda place: place if place % 2 else str(place)), "convert it, as with y.astype('str')"),
        (objects(lambda place: place == 1 or place), "data.y holds object"),
        ([1, "1", 2, "2"] * 6, "data.y holds object"),
        ([b"a", "a", "b"] * 8, "data.y holds object"),
        ([b"\xff", b"\xff\0"] * 12, "not text in UTF-8"),
        (np.array([b"\xff%d" % place for place in PLACES]), r"not text in UTF-8 (b'\xff0'): decode them"),
        (torch.tensor(PLACES).to(torch.float8_e5m2), "convert it, as with y.astype('int64')"),
        ((torch.tensor(PLACES) + 1j).conj(), "data.y holds complex64 of shape (24,)"),
    ],
)
def test_labels_that_name_no_classes_are_refused(y: Any, said: str) -> None:
    with pytest.raises(MetaLearningError, match=re.escape(said)):
        episodes(X, y).setup("fit")


def quantised(per_channel: bool) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but tensors of older programs are there
        if per_channel:
            return torch.quantize_per_channel(X, torch.full((4,), 0.5), torch.zeros(4), 1, torch.qint8)
        return torch.quantize_per_tensor(X, 0.5, 0, torch.qint8)


TENSORS: dict[str, Any] = {
    "float8_e4m3fn": X.to(torch.float8_e4m3fn),
    "quantised": quantised(per_channel=False),
    "quantised by channel": quantised(per_channel=True),
    "negative bit": torch.complex(X, -X).conj().imag,
    "a list of bfloat16": list(X.bfloat16()),
    "a tuple with gradients": tuple(row.clone().requires_grad_() for row in X),
    "sparse": X.to_sparse(),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_of_every_type_are_their_values(case: str) -> None:
    assert torch.equal(episodes(TENSORS[case], PLACES).data.images, X)


COMPLEX = "give two channels, as with numpy.stack([x.real, x.imag], 1)"


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.complex(X, X).conj(), COMPLEX),
        (list(torch.complex(X, X).conj()), COMPLEX),
        (torch.view_as_complex(torch.stack([X, X], -1).half()), COMPLEX),
        (torch.nested.nested_tensor(list(X), layout=torch.jagged), "data.x is a nested tensor, expected"),
        (X.to("meta"), "data.x is a tensor on the meta device"),
        (X.to(torch.uint8).view(torch.bits8), "data.x is a tensor of torch.bits8, whose values NumPy cannot hold"),
        (np.full((24, 4), b"ab"), "number the words"),
    ],
)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_tensors_without_usable_values_are_refused(x: Any, said: str) -> None:
    with pytest.raises(MetaLearningError, match=re.escape(said)):
        episodes(x, PLACES).setup("fit")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("test_classes", value) for value in (2.5, 2.0, float("nan"), "2", None, True)),
        *(("validation_classes", value) for value in (1.5, -1)),
        *(("split_seed", value) for value in (1.5, "a", None, 2**70)),
        *(("seed", value) for value in (0.5, None, -(2**63) - 1)),
    ],
)
def test_numbers_that_count_nothing_are_refused_by_their_name(name: str, value: Any) -> None:
    with pytest.raises(MetaLearningError, match=rf"^data\.{name} is {re.escape(repr(value))}, expected "):
        episodes(X, PLACES, **{name: value})
