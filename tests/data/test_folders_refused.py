"""Folders, split files and settings that make no tasks."""

import inspect
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.data import FolderEpisodes
from lightning_meta.errors import MetaLearningError
from tests.data.folder_files import CLASSES, LEFT_OUT, episodes, held_out, write_class


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetaLearningError, match="data.root is .*nowhere, which cannot be read .No such file"):
        episodes(tmp_path / "nowhere").setup("fit")
    (tmp_path / "file").write_text("")
    with pytest.raises(MetaLearningError, match="data.root is .*file, which cannot be read .Not a directory"):
        episodes(tmp_path / "file").setup("fit")


def test_a_root_without_class_folders_is_refused(tree: Path) -> None:
    (tree.parent / "empty").mkdir()
    for root in (tree.parent / "empty", tree / "ash"):
        with pytest.raises(MetaLearningError, match=f"{root}/CLASS/[*].png or {root}/{{train,val,test}}/CLASS/[*].png"):
            episodes(root).setup("fit")


def test_a_class_in_two_splits_is_refused(split_tree: Path) -> None:
    write_class(split_tree / "test", "elm")
    with pytest.raises(
        MetaLearningError, match="where train and test both hold elm, but .*set data.root to .*/train, "
    ):
        episodes(split_tree).setup("fit")


def test_a_class_may_be_called_train(tree: Path) -> None:
    (tree / "ash").rename(tree / "train")
    data = held_out(tree)
    assert list(data.folders.files) == [*list(CLASSES)[1:], "train"] and data.folders.splits is None


FILES: dict[str, tuple[str, str]] = {
    "twice": ('{"train": ["ash", "elm"], "val": ["ash"]}', "names class ash twice"),
    "unknown": ("train ash\ntest a pine\ntest pine\ntest yew\ntest zelkova", "names a pine, pine, yew and 1 more, but"),
    "split": ("ash\nelm", "(unexpected split 'ash'): expected JSON such as"),
    "no name": ("train ash\ntest\n", "('' is not the name of a class)"),
    "numbers": ('{"train": [1]}', "(1 is not the name of a class: write it in quotation marks)"),
    "shape": ('{"train": 3}', "which cannot be read ("),
    "broken": ('{"train": ', "which cannot be read ("),
    "binary": ("\x00\x80", "(unexpected split '"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_split_the_classes_are_refused(tree: Path, tmp_path: Path, case: str) -> None:
    content, said = FILES[case]
    (tmp_path / "split.txt").write_text(content)
    with pytest.raises(MetaLearningError, match="^data.split_file is ") as error:
        episodes(tree, split_file=str(tmp_path / "split.txt")).setup("fit")
    assert said in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        ("yaml", "train: &a [*a]", "*a is part of itself"),
        ("yaml", "train: " + "[" * 3000, "it is nested more than 64 deep"),
        ("json", '{"train": ' + "[" * 100_000, "which cannot be read ("),
        ("txt", None, "it is not a regular file"),
    ],
)
def test_split_files_that_never_end_are_refused(
    suffix: str, content: str | None, said: str, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"split.{suffix}"
    os.mkfifo(path) if content is None else path.write_text(content)
    with pytest.raises(MetaLearningError, match="^data.split_file is ") as error:
        episodes(tree, split_file=str(path)).setup("fit")
    assert said in str(error.value)


def test_a_split_file_that_does_not_exist_is_refused(tree: Path) -> None:
    with pytest.raises(MetaLearningError, match="data.split_file is nowhere.json, which cannot be read .*No such file"):
        episodes(tree, split_file="nowhere.json").setup("fit")


def test_classes_that_the_split_file_does_not_name_are_left_out(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": ["ash", "elm", "fir"], "test": ["oak", "maple"]}')
    data = episodes(tree, split_file=str(tmp_path / "split.json"))
    with pytest.warns(UserWarning, match="split.json does not name birch, cedar, hazel and 1 more, which .*: left out"):
        data.setup("fit")
    assert data.data.names == ["ash", "elm", "fir", "maple", "oak"] and not data.has_validation()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "too many": (
        "tree",
        {"validation_classes": 6, "test_classes": 3},
        "6 and data.test_classes is 3, but .* 9 classes",
    ),
    "below none": ("tree", {"test_classes": -1}, "data.test_classes is -1, expected at least 0"),
    "size": ("tree", {"image_size": 0}, "data.image_size is 0, expected at least 1"),
    "split twice": (
        "split_tree",
        {"test_classes": 2},
        "data.test_classes is 2, but the folders of .* split the classes",
    ),
    "file and folders": ("split_tree", {"split_file": "x"}, "data.split_file is x, but the folders of .* leave it out"),
    "file and number": (
        "tree",
        {"split_file": "x", "test_classes": 2},
        "data.test_classes is 2, but x splits the classes",
    ),
    "ways": (
        "split_tree",
        {"ways": 4},
        "the validation split has 2 classes: lower data.ways, or add folders to .*/val, ",
    ),
    "no test": ("tree", {}, "the test split has 0 classes: raise data.test_classes, or set data.test_tasks to 0"),
    "one class": (
        "tree",
        {"test_classes": 8, "test_tasks": 0},
        "the train split has 1 classes: .* or data.test_classes",
    ),
    "all small": (
        "split_tree",
        {"shots": 9},
        "a train task needs 9 shots",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings(f"ignore:.*{LEFT_OUT}")
def test_settings_that_make_no_tasks_are_refused(case: str, request: pytest.FixtureRequest) -> None:
    name, changes, said = REFUSED[case]
    with pytest.raises(MetaLearningError, match=said) as error:
        episodes(request.getfixturevalue(name), **changes).setup("fit")
    settings = inspect.signature(FolderEpisodes).parameters.keys()
    assert set(re.findall(r"data\.(\w+)", str(error.value))) <= settings


def test_pictures_without_training_classes_cannot_be_normalised(split_tree: Path) -> None:
    shutil.rmtree(split_tree / "train")
    episodes(split_tree).setup("test")
    with pytest.raises(MetaLearningError, match="data.normalise is true, but .* holds no training pictures"):
        episodes(split_tree, normalise=True).setup("test")


@pytest.mark.parametrize("text", ['{"train": ["a"], "train": ["b"]}', '{"val": ["a"], "validation": "train"}'])
def test_a_split_that_stands_twice_is_refused(text: str, tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(
        MetaLearningError, match="(the split train stands there twice|val and validation are one split)"
    ):
        episodes(tree, split_file=str(path)).setup("fit")
