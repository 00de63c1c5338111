"""The classes of every split, from a file or the configuration: splits that refer to others, and what is refused."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

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
    "two": ({"train": ["ash"], "val": "test", "test": "validation"}, "(validation is test is validation)"),
    "three": ({"train": "val", "val": "test", "test": "train"}, "(train is validation is test is train)"),
    "leads to a circle": (
        {"train": "val", "val": "test", "test": "val"},
        "(train is validation is test is validation)",
    ),
    "unknown": ({"train": ["ash"], "test": "training"}, "unexpected split 'training'"),
    "unexpected": ({"train": ["ash"], "dev": ["oak"]}, "unexpected split 'dev'"),
    "stands twice": ({"val": ["ash"], "validation": ["oak"]}, "the split validation stands there twice"),
    "in two splits": ({"train": ["ash"], "test": ["ash"]}, "names class ash twice: name it once, or"),
    "no such class": ({"train": ["yew"]}, "names yew, but there are ash, elm, fir and 1 more: name those"),
    "number": ({"train": [1]}, "1 is not the name of a class: write it in quotation marks"),
    "nothing": ({"train": None}, "train is None, expected a list"),
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
