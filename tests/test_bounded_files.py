"""Whatever a file holds, reading it ends soon, and in one line that names it."""

import os
import time
from pathlib import Path

import pytest
import yaml

from lightning_meta import bounded_files
from lightning_meta.bounded_files import check_yaml, load_yaml, read_text, read_yaml
from lightning_meta.errors import MetaLearningError


def chain(first: str, line: str, links: int) -> str:
    """A document whose every line is made of the anchor of the line before it, nine times."""
    return first + "".join(
        line.format(new=f"a{i}", old=", ".join([f"*a{i - 1}"] * 9), one=f"*a{i - 1}") for i in range(1, links)
    )


HOSTILE = {
    "a bomb of lists": (chain("a0: &a0 [x]\n", "{new}: &{new} [{old}]\n", 12), "more than 100,000 values"),
    "a bomb of merges": (chain("a0: &a0 {x: 1}\n", "{new}: &{new} {{<<: [{old}]}}\n", 12), "more than 100,000 values"),
    "part of itself": ("a: &a [*a]", "is part of itself"),
    "part of itself, deep": ("a: &a {b: [{c: *a}]}", "is part of itself"),
    "deep": ("[" * 100_000, "nest"),
    "deep by indentation": ("".join(" " * i + "a:\n" for i in range(900)), "nested more than 64 deep"),
    "deep by keys": ("? " * 50_000, "nested more than 64 deep"),
    "deep by aliases": (chain("a0: &a0 [x]\n", "{new}: &{new} [{one}]\n", 2000), "nested more than 64 deep"),
    "many": (f"[{'1,' * 400_000}]", "more than 100,000 values"),
    "huge": ("a: " + "x" * 2**20, "at most 1,048,576"),
    "no YAML": ("a: [", "is not YAML: .* in line 1"),
    "undefined alias": ("a: *b", "undefined alias"),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
    "control characters": ("a: \0", "control characters|special characters"),
    "code": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a 13th month": ("a: 2020-13-01", "month must be"),
    "a number of 5,000 digits": (f"a: {'9' * 5000}", "4300 digits"),
    "not the type that it claims": ("a: !!bool maybe", "cannot be read as YAML: 'maybe'"),
    "an empty number": ("a: !!int ''", "cannot be read as YAML"),
    "not a date": ("a: !!timestamp soon", "cannot be read as YAML"),
}


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_refused_in_a_line(
    text: str, said: str, loader: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_files, "_FASTEST", loader)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(MetaLearningError, match=said) as caught:
        read_yaml(path)
    assert time.process_time() - start < 5
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_aliases_serve_as_before() -> None:
    text = "base: &base {lr: 0.1, steps: [1, 2]}\none: {<<: *base, lr: 0.2}\ntwo: *base\n"
    assert load_yaml(text, "here") == yaml.safe_load(text)


def test_what_is_read_is_a_regular_file_in_utf_8(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa: 1")
    said = {
        "pipe": "not a regular file", "zero": "not a regular file", ".": "not a regular file",
        "nowhere": "No such file", "latin": r"not text in UTF-8 \(byte 0\)", "large": "it has 5 bytes, at most 4",
    }  # fmt: skip
    for name, message in said.items():
        with pytest.raises(MetaLearningError, match=message):
            read_text(tmp_path / name, most=4)
    assert read_yaml(tmp_path / "marked") == {"a": 1}


SIDE = f"- &a [{'[' * 39}{']' * 39}, []]\n- "  # deep, and then shallow


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (f"[{'1,' * 99_999}]", f"[{'1,' * 100_000}]"),
        (f"[{'[],' * 99_999}]", f"[{'[],' * 100_000}]"),
        ("[" * 63 + "]" * 63, "[" * 64 + "]" * 64),
        (f"{SIDE}{'[' * 20}*a{']' * 20}", f"{SIDE}{'[' * 40}*a{']' * 40}"),
        ("#" * 2**20, "#" * (2**20 + 1)),
    ],
    ids=["values", "empty lists", "depth", "depth of an alias", "letters"],
)
def test_bounds_are_where_they_are_said_to_be(within: str, beyond: str) -> None:
    check_yaml(within, "here")
    with pytest.raises(MetaLearningError, match=r"than 100,000 values|more than 64 deep|at most 1,048,576"):
        check_yaml(beyond, "here")


def test_a_file_of_the_largest_size_is_read_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_text(tmp_path / "marked", most=7) == "a: 1"
