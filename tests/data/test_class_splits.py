"""The classes of every split, from a file or the configuration: splits that refer to others, and what is refused."""

import enum
import inspect
import itertools
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_meta.cli import main
from lightning_meta.data import ArrayEpisodes, FolderEpisodes
from lightning_meta.data.files.class_splits import named_splits
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import SHORT_RUN
from tests.data.folder_files import episodes

TREES = ("ash", "elm", "fir", "oak")
FORMS = {"splits": str, "json": json.dumps, "yaml": lambda splits: yaml.safe_dump(splits, sort_keys=False)}


def read(splits: Any, form: str, folder: Path, classes: Any = TREES) -> Any:
    if form == "splits":
        return named_splits(None, splits, classes, "there are")
    path = folder / f"split.{form}"
    path.write_text(FORMS[form](splits))
    return named_splits(str(path), None, classes, "there are")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("first", "second", "third"),
    list(itertools.permutations([("train", ["oak", "ash"]), ("val", "train"), ("test", "val")])),
)
def test_a_split_may_refer_to_one_that_refers_to_another_in_any_order(
    form: str, first: Any, second: Any, third: Any, tmp_path: Path
) -> None:
    found = read(dict([first, second, third]), form, tmp_path)
    assert found == {"train": ["ash", "oak"], "validation": ["ash", "oak"], "test": ["ash", "oak"]}


REFUSED: dict[str, tuple[Any, str]] = {
    "itself": ({"train": ["ash"], "test": "test"}, "each other's classes (test is test): give one of them a list"),
    "two": ({"train": ["ash"], "val": "test", "test": "validation"}, "(val is test is val)"),
    "three": ({"train": "val", "val": "test", "test": "train"}, "(train is val is test is train)"),
    "leads to a circle": (
        {"train": "val", "val": "test", "test": "val"},
        "(train is val is test is val)",
    ),
    "unknown": ({"train": ["ash"], "test": "training"}, "unexpected split 'training'"),
    "unexpected": ({"train": ["ash"], "dev": ["oak"]}, "unexpected split 'dev'"),
    "stands twice": ({"val": ["ash"], "validation": ["oak"]}, "(val and validation are one split)"),
    "in two splits": ({"train": ["ash"], "test": ["ash"]}, "names class ash twice: name it once, or"),
    "no such class": ({"train": ["yew"]}, "names yew, but there are ash, elm, fir and 1 more: name those"),
    "number": ({"train": [1]}, "1 is not the name of a class: write it in quotation marks"),
    "nothing": ({"val": None}, "(val is null, expected a list)"),
    "one number": ({"val": 3}, "(val is 3, expected a list)"),
    "true": ({"val": [True]}, "True is not the name of a class: write it in quotation marks"),
    "null": ({"val": [None]}, "None is not the name of a class: write it in quotation marks"),
    "list": ({"val": [["ash"]]}, "['ash'] is not the name of a class)"),
    "empty": ({"val": [""]}, "'' is not the name of a class)"),
    "mapping": ({"train": {"ash": 3}}, "train is {'ash': 3}, expected a list"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", REFUSED)
def test_splits_that_name_no_classes_are_refused(case: str, form: str, tmp_path: Path) -> None:
    splits, said = REFUSED[case]
    with pytest.raises(MetaLearningError, match=r"^data\.split") as error:
        read(splits, form, tmp_path)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith("data.splits " if form == "splits" else f"data.split_file is {tmp_path}/split.")


class Tree(str, enum.Enum):
    """Classes by name."""

    ASH, OAK = "ash", "oak"


COLLECTIONS: dict[str, Callable[[list[str]], Any]] = {
    "tuple": tuple, "set": set, "frozenset": frozenset, "array": np.array, "keys": dict.fromkeys, "deque": deque,
    "array of objects": lambda names: np.array(names, object), "enumeration": lambda names: [Tree(n) for n in names],
}  # fmt: skip


@pytest.mark.parametrize("case", COLLECTIONS)
def test_classes_may_be_named_in_any_collection(case: str) -> None:
    collect = COLLECTIONS[case] if case != "keys" else lambda names: dict.fromkeys(names).keys()
    found = named_splits(None, {"train": collect(["oak", "ash"]), "test": collect([])}, TREES, "there are")
    assert found == {"train": ["ash", "oak"], "validation": [], "test": []}
    assert {type(name) for name in found["train"]} == {str} or case.startswith("array")


@pytest.mark.parametrize(
    "names", [b"ash", np.array(["ash"])[0:1, None], np.array("ash"), iter(["ash"]), np.array([1]), {b"ash"}]
)
def test_what_names_no_classes_once_and_for_all_is_refused(names: Any) -> None:
    with pytest.raises(MetaLearningError, match=r"^data.splits cannot be read \(.*\): expected lists of class names"):
        named_splits(None, {"train": names}, TREES, "there are")


@pytest.mark.parametrize("between", [" ", "\t", "  ", " \t ", "\u3000"])
def test_lines_hold_a_split_and_a_class_with_white_space_between(between: str, tmp_path: Path) -> None:
    path = tmp_path / "split.txt"
    path.write_text(f"train{between}red ash \n\n \t\n\tval{between}elm\r\ntest{between}oak\ttree")
    found = named_splits(str(path), None, ["red ash", "elm", "oak\ttree"], "there are")
    assert found == {"train": ["red ash"], "validation": ["elm"], "test": ["oak\ttree"]}


def test_lines_without_a_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("train ash\ntest\t")
    with pytest.raises(MetaLearningError, match="'' is not the name of a class"):
        named_splits(str(tmp_path / "split.txt"), None, TREES, "there are")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ("{train: [0, 1], val: [2], test: [3]}", "(0 is not the name of a class: write it in quotation marks)"),
        ("{train: ['0', 1], test: ['2']}", "is not the name of a class: write it in quotation marks)"),
        ("{train: ['0', '1'], val: null}", "(val is null, expected a list)"),
        ("{train: ['0', '1'], val: 2}", "(val is 2, expected a list)"),
        ("{train: ['0', '1'], dev: ['2']}", "(unexpected split 'dev')"),
        ("{train: ['0', '1'], test: [yes]}", "is not the name of a class: write it in quotation marks)"),
        ("{train: ['0', '1'], test: ['2', '3']}", None),
        ("{train: ['0', '1'], val: test, test: ['2', '3']}", None),
    ],
)
@pytest.mark.parametrize("kind", [FolderEpisodes, ArrayEpisodes])
def test_splits_of_the_command_line_say_what_is_wrong_with_them(kind: type, splits: str, said: str | None) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--splits", type=inspect.signature(kind).parameters["splits"].annotation)
    parsed = parser.parse_args([f"--splits={splits}"]).splits
    if said is None:
        assert parsed == yaml.safe_load(splits)
        return
    with pytest.raises(MetaLearningError) as error:
        named_splits(None, parsed, list("0123"), "data.y holds")
    assert said in str(error.value)


def test_folders_are_split_by_the_configuration(tree: Path) -> None:
    splits: Any = {"train": ["elm", "ash", "fir"], "val": ["oak", "maple"], "test": "val"}
    data = episodes(tree, splits=splits)
    with pytest.warns(
        UserWarning, match="data.splits does not name birch, cedar, hazel and 1 more, which .*: left out"
    ):
        data.setup("fit")
    held_out = ["maple", "oak"]
    assert data.class_splits == {"train": ["ash", "elm", "fir"], "validation": held_out, "test": held_out}
    with pytest.raises(MetaLearningError, match="data.test_classes is 2, but data.splits splits the classes already"):
        episodes(tree, splits=splits, test_classes=2).setup("fit")
    assert data.more_classes("train") == "name more of them in data.splits"


@pytest.mark.parametrize("kind", [FolderEpisodes, ArrayEpisodes])
def test_a_file_beside_splits_is_refused(kind: Any) -> None:
    given: Any = {"x": np.zeros((4, 1)), "y": np.arange(4)} if kind is ArrayEpisodes else {}
    with pytest.raises(MetaLearningError, match="data.split_file is a.json, but data.splits names the classes already"):
        kind(split_file="a.json", splits={"train": ["ash"]}, **given)
    if kind is ArrayEpisodes:
        with pytest.raises(MetaLearningError, match="data.test_classes is 1, but data.splits splits the classes"):
            kind(splits={"train": ["0"]}, test_classes=1, **given).setup("fit")


def test_a_configuration_splits_arrays_and_is_recorded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((30, 4)))
    np.save(tmp_path / "y.npy", np.arange(10).repeat(3))
    splits = {"train": ["0", "2", "4"], "test": ["1", "3"], "val": "test"}
    arrays: dict[str, Any] = {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy"), "splits": splits}
    settings = {"ways": 2, "test_tasks": 2, "validation_tasks": 2, "meta_batch_size": 2}
    own = {"data": {"class_path": "ArrayEpisodes", "init_args": arrays | settings}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    arguments = ["-c", str(tmp_path / "own.yaml"), "--model=MAML", "--model.backbone=lightning_meta.backbones.MLP"]
    arguments += ["--model.backbone.inputs=4", "--model.inner.evaluation_steps=1", "--model.compile=false"]
    arguments += ["--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *SHORT_RUN]) == 0
    (recorded,) = (path for path in tmp_path.rglob("config.yaml"))
    assert yaml.safe_load(recorded.read_text())["data"]["init_args"]["splits"] == splits
