"""Files of a command are replaced and removed, those of others stay."""

from pathlib import Path

import pytest

from lightning_meta.errors import MetaLearningError
from lightning_meta.owned_files import Write, replace_files

LIST = ".written"


def write(text: str) -> Write:
    return lambda path: path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def test_a_second_call_replaces_and_removes_its_own_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    replace_files(folder, {"a": write("1"), "below/b": write("1"), "c": write("1")}, LIST, "--output")
    (folder / "mine").write_text("kept")
    replace_files(folder, {"a": write("2"), "d": write("2")}, LIST, "--output")
    assert contents(folder) == {"a": "2", "d": "2", "mine": "kept", LIST: "a\nd"}


def test_a_file_of_somebody_else_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    replace_files(tmp_path, {"a": write("1")}, LIST, "--output")
    (tmp_path / "b").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(MetaLearningError, match=f"--output is {tmp_path}, where b was not written by this command"):
        replace_files(tmp_path, {"a": write("2"), "b": write("2")}, LIST, "--output")
    assert contents(tmp_path) == before


def test_a_call_that_is_cut_short_leaves_whole_files_that_the_next_one_replaces(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("hal")
        raise OSError("the disk is full")

    replace_files(tmp_path, {"a": write("1"), "b": write("1")}, LIST, "--output")
    with pytest.raises(OSError, match="full"):
        replace_files(tmp_path, {"new": write("2"), "a": fail, "b": write("2")}, LIST, "--output")
    assert {name: text for name, text in contents(tmp_path).items() if len(name) == 1} == {"a": "1", "b": "1"}
    replace_files(tmp_path, {"new": write("3"), "a": write("3")}, LIST, "--output")
    assert {name: text for name, text in contents(tmp_path).items() if ".partial" not in name} == {
        "a": "3", "new": "3", LIST: "a\nnew",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../outside", "/absolute", "below/../../outside", "link/outside", "link", ".", ""])
def test_a_list_that_somebody_changed_removes_nothing_outside(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    replace_files(folder, {"a": write("1")}, LIST, "--output")
    (tmp_path / "outside").write_text("mine")
    (folder / "link").symlink_to(tmp_path)
    (folder / LIST).write_text(f"a\n{name.replace('/absolute', str(tmp_path / 'outside'))}")
    replace_files(folder, {"a": write("2")}, LIST, "--output")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (folder / "link").is_symlink()
    with pytest.raises(MetaLearningError, match="where link/outside was not written by this command"):
        replace_files(folder, {"a": write("3"), "link/outside": write("3")}, LIST, "--output")
    (folder / "link").unlink()
    assert contents(folder) == {"a": "2", LIST: "a"}
