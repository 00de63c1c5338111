"""The reader of pickles: what published files hold comes through, and nothing runs."""

import codecs
import collections
import os
import pickle
import struct
import subprocess
import tracemalloc
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_meta.data.files import safe_pickle
from lightning_meta.data.files.safe_pickle import load_pickle
from lightning_meta.errors import MetaLearningError

CONTENT: dict[str, Any] = {
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    "big-endian": np.arange(3, dtype=">i4"),
    "words": np.array(["ab", "c"]),
    "truth": np.array([True, False]),
    "objects": np.array([b"\xff\x00", None, "ab"], object),
    "list of arrays": [np.arange(2), np.arange(3)],
    "scalars": [np.int64(3), np.float32(0.5), np.uint8(255)],
    "empty": np.zeros((0, 3)),
    "bookkeeping": defaultdict(list, {0: [1, 2]}),
    "counts": defaultdict(int, {3: 1}),
    "plain": (1, 2.5, "text", b"\x89PNG", b"", None, True, [1], OrderedDict(a=1)),
}


def load(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return load_pickle("Set", path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("newer", [False, True], ids=["numpy.core", "numpy._core"])
def test_arrays_and_containers_come_through(tmp_path: Path, protocol: int, newer: bool) -> None:
    content = pickle.dumps(CONTENT, protocol)
    if newer and protocol < 4:  # names are lines of text, whose length nobody counts
        content = content.replace(b"numpy.core", b"numpy._core")
    found = load(tmp_path / "file", content)
    assert found.keys() == CONTENT.keys()
    for key, value in CONTENT.items():
        np.testing.assert_equal(found[key], value)
        if isinstance(value, np.ndarray):
            assert (
                found[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=") and found[key].shape == value.shape
            )


def test_strings_of_python_2(tmp_path: Path) -> None:
    state = b"(I1\n(I2\ntcnumpy\ndtype\n(S'u1'\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xff\\x01'\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
    assert load(tmp_path / "file", b"(dS'data'\n" + array + b"s.")["data"].tolist() == [255, 1]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch ran"), f"{os.system.__module__}.system"),
        (Call(eval, "open('ran', 'w')"), "builtins.eval"),
        (Call(subprocess.Popen, ["touch", "ran"]), "subprocess.Popen"),
        (Call(np.save, "ran", [1]), "numpy.save"),
        (Call(np.fromfile, "file"), "numpy.fromfile"),
        (Call(np.memmap, "ran", "u1", "w+", 0, (1,)), "numpy.memmap"),
        (Call(np.lib.npyio.NpzFile, "file"), "numpy.lib.npyio.NpzFile"),
        (Call(getattr, "a", "b"), "builtins.getattr"),
        (Call(collections.Counter, "a"), "collections.Counter"),
        (Call(codecs.decode, b"a", "hex"), "_codecs.decode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"data": np.array([call], object), "labels": [call]}
    with pytest.raises(MetaLearningError) as error:
        load(tmp_path / "file", pickle.dumps(given, protocol).replace(b"__builtin__", b"builtins"))
    assert str(error.value).startswith(f"Set: {tmp_path / 'file'} asks for ")
    assert name.rpartition(".")[2] in str(error.value) and "it was not called" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("factory", [dict, os.getcwd, eval])
def test_a_defaultdict_makes_nothing_but_lists_and_numbers(tmp_path: Path, factory: Any) -> None:
    with pytest.raises(MetaLearningError, match="asks for "):
        load(tmp_path / "file", pickle.dumps(defaultdict(factory)))
    found = load(tmp_path / "file", pickle.dumps(defaultdict(list)))
    assert (found[5], found) == ([], {5: []})


def read_by_others(path: Path) -> list[Any]:
    """As learn2learn's modules read pickles."""
    with path.open("rb") as file:
        first = pickle.load(file)
        file.seek(0)
        unpickler = pickle._Unpickler(file)
        unpickler.encoding = "latin1"
        return [first, unpickler.load()]


def test_what_other_code_reads_is_data_in_a_block_and_pickles_after_it(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pkl", tmp_path / "bad.pkl"
    good.write_bytes(pickle.dumps({"a": np.arange(3)}))
    bad.write_bytes(pickle.dumps(Call(Path.touch, tmp_path / "ran")))
    before = pickle.load, pickle.Unpickler, pickle._Unpickler
    with safe_pickle.pickles_are_data("Set"):
        assert [found["a"].tolist() for found in read_by_others(good)] == [[0, 1, 2]] * 2
    with pytest.raises(MetaLearningError, match="bad.pkl asks for pathlib"), safe_pickle.pickles_are_data("Set"):
        read_by_others(bad)
    assert (pickle.load, pickle.Unpickler, pickle._Unpickler) == before
    assert not (tmp_path / "ran").exists()
    read_by_others(bad)
    assert (tmp_path / "ran").exists()


def test_dotted_names_are_refused(tmp_path: Path) -> None:
    content = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile.\x93."
    with pytest.raises(MetaLearningError, match="asks for numpy.ndarray.tofile"):
        load(tmp_path / "file", content)


def array(kind: str, flags: int, shape: str, content: bytes) -> bytes:
    """Protocol 2: an array whose dtype has a state of one's own."""
    dtype = f"cnumpy\ndtype\n(S'{kind}'\nI0\nI1\ntR(I3\nS'|'\nNNNI8\nI1\nI{flags}\ntb".encode()
    raw = b"U" + struct.pack("B", len(content)) + content
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return head + b"(I1\n" + shape.encode() + dtype + b"I00\n" + raw + b"tb."


@pytest.mark.parametrize(
    "content",
    [
        array("O8", 0, "(I1\nt", b"\x41" * 8),  # addresses of objects, said to be plain bytes
        array("V8", 63, "(I1\nt", b"\x41" * 8),
        array("M8[s]", 0, "(I1\nt", b"\x41" * 8),
        array("u1", 0, "(I99\nt", b"\x41" * 8),  # more than there is
        array("u1", 0, "(I-1\nt", b"\x41" * 8),
        b"\x80\x02cnumpy\nndarray\n(I9\ntR.",  # an array of memory as it is
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRU\x08AAAAAAAAtR.",
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(U\x08AAAAAAAAcnumpy\ndtype\n(S'O8'\ntR(I1\ntS'C'\ntR.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x08__code__K\x01s\x86b.",  # attributes of a function
    ],
)
def test_lies_about_memory_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MetaLearningError, match="is damaged, incomplete or another data set's"):
        load(tmp_path / "file", content)


@pytest.mark.parametrize("content", [b"\x80\x02Nr" + struct.pack("<I", 2**24) + b".", b"Np16777216\n."])
def test_few_bytes_take_little_memory(tmp_path: Path, content: bytes) -> None:
    tracemalloc.start()
    try:
        load(tmp_path / "file", content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_bytearrays_are_bytes(tmp_path: Path) -> None:
    """Memory for bytes is taken as they come, for a bytearray at once, however long it is said to be."""
    assert type(load(tmp_path / "file", pickle.dumps(bytearray(b"abc"), 5))) is bytes


@pytest.mark.parametrize("name", sorted({key for key, value in safe_pickle._KNOWN.items() if callable(value)}), ids=str)
@pytest.mark.parametrize(
    "state",
    [
        b"}\x8c\x04keptK\x01s",  # for its __dict__
        b"N}\x8c\x0c__defaults__K\x01\x85s\x86",  # for its attributes
        b"N}\x8c\x04keptK\x01s\x86",
        b"N}\x8c\x08__call__K\x01s\x86",
    ],
)
def test_nothing_outlives_the_load(tmp_path: Path, name: tuple[str, str], state: bytes) -> None:
    named = b"".join(b"\x8c" + struct.pack("B", len(part)) + part.encode() for part in name)
    with pytest.raises(MetaLearningError, match="is damaged"):
        load(tmp_path / "file", b"\x80\x04" + named + b"\x93" + state + b"b.")
    assert load(tmp_path / "file", pickle.dumps(CONTENT, 2)).keys() == CONTENT.keys()


def test_message_does_not_print_nested_lists(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(4):
        nested = [nested] * 64
    with pytest.raises(MetaLearningError) as error:
        load(tmp_path / "file", pickle.dumps(Call(codecs.encode, "a", nested), 2))
    assert "unexpected encoding" in str(error.value) and len(str(error.value)) < 500


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetaLearningError, match=r"^Set: .* cannot be read \(IsADirectoryError: .*--data.download true"):
        load_pickle("Set", tmp_path)

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")  # root can read all files

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MetaLearningError, match=r"cannot be read \(PermissionError: Permission denied\)"):
        load_pickle("Set", tmp_path / "file")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(MetaLearningError, match=r"^Set: .*/file is damaged, .* \(it is a pipe\)"):
        load_pickle("Set", tmp_path / "file")


def test_array_of_the_same_form_without_a_lie(tmp_path: Path) -> None:
    assert load(tmp_path / "file", array("u1", 0, "(I8\nt", b"\x41" * 8)).tolist() == [65] * 8


@pytest.mark.parametrize("part", [0, 1, 0.5, 0.99])
def test_truncated_pickle(tmp_path: Path, part: float) -> None:
    content = pickle.dumps({"data": np.zeros(100)})
    with pytest.raises(MetaLearningError) as error:
        load(tmp_path / "file", content[: int(len(content) * part)] if part < 1 else b"PK\x03\x04 an archive")
    assert "is damaged, incomplete" in str(error.value) and "--data.download true" in str(error.value)
