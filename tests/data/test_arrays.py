"""Few-shot tasks from arrays: the same sampler, the split, what is refused, and a whole run."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_meta.cli import main
from lightning_meta.data import ArrayEpisodes, ClassImages, ImageEpisodes
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import SHORT_RUN
from tests.data.tiny_episodes import SPLITS, assert_same

NAMES = np.array(["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak"])
COUNTS = np.array([6, 7, 8, 6, 7, 8, 6, 7, 8])


def shuffled_images() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (63, 1, 4, 4) of nine classes in any order, and their names."""
    generator = np.random.default_rng(0)
    y = generator.permutation(NAMES.repeat(COUNTS))
    return generator.integers(0, 256, (len(y), 1, 4, 4), np.uint8), y


def episodes(x: Any, y: Any, **changes: Any) -> ArrayEpisodes:
    settings: dict[str, Any] = {"validation_classes": 2, "test_classes": 3, "ways": 2, "shots": 2, "queries": 3}
    return ArrayEpisodes(x=x, y=y, **settings | changes)


class SortedImages(ImageEpisodes):
    """The images, sorted by a loop, in the classes of the given splits."""

    def __init__(self, splits: dict[str, torch.Tensor]) -> None:
        super().__init__(ways=2, shots=2, queries=3)
        self.classes = splits

    def load(self) -> ClassImages:
        x, y = shuffled_images()
        images = np.concatenate([[image for image, label in zip(x, y, strict=True) if label == name] for name in NAMES])
        starts = torch.tensor([int(COUNTS[:place].sum()) for place in range(len(NAMES))])
        return ClassImages(torch.from_numpy(images), starts, torch.from_numpy(COUNTS), self.classes)


@pytest.mark.parametrize("split", SPLITS)
def test_arrays_give_the_tasks_of_images(split: Any) -> None:
    x, y = shuffled_images()
    data, numbers = episodes(x, y), torch.arange(50)
    expected = SortedImages(data.data.splits).draw(split, numbers)
    assert_same(data.draw(split, numbers), expected)
    assert_same(episodes(x.astype(np.float32) / np.float32(255), y).draw(split, numbers), expected)


def test_a_row_is_an_example_of_the_class_that_it_stands_for() -> None:
    x = np.arange(63, dtype=np.float64)[:, None]
    y = np.random.default_rng(1).permutation((7 * np.arange(9)).repeat(7))  # labels need not be 0, 1, 2
    data = episodes(x, y)
    for split in SPLITS:
        episode = data.draw(split, torch.arange(40))
        rows, classes = episode.support_x.long()[..., 0], data.data.splits[split][episode.classes]
        assert np.array_equal(y[rows], (7 * classes).repeat_interleave(2, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_are_taken_as_they_are(dtype: torch.dtype) -> None:
    x = torch.linspace(-1000, 1000, 63, dtype=dtype)[:, None].requires_grad_()
    episode = episodes(x, torch.arange(9).repeat_interleave(7)).draw("train", torch.arange(30))
    assert episode.support_x.dtype == torch.float32 and episode.support_x.shape == (30, 4, 1)
    assert set(episode.support_x.flatten().tolist()) <= set(x.float().flatten().tolist())


def test_bytes_of_the_other_order_are_read(tmp_path: Path) -> None:
    x, y = shuffled_images()
    x = x / 255
    foreign = episodes(x.astype(">f4"), y).draw("test", torch.arange(5))
    assert_same(foreign, episodes(x.astype("<f4"), y).draw("test", torch.arange(5)))


def test_files_arrays_and_tensors_are_the_same(tmp_path: Path) -> None:
    x, y = shuffled_images()
    y = np.unique(y, return_inverse=True)[1]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    expected = episodes(x, y).draw("train", torch.arange(5))
    assert_same(episodes(torch.from_numpy(x), torch.from_numpy(y)).draw("train", torch.arange(5)), expected)
    assert_same(episodes(str(tmp_path / "x.npy"), tmp_path / "y.npy").draw("train", torch.arange(5)), expected)


def test_the_split_has_every_class_once_and_does_not_depend_on_the_stream() -> None:
    x, y = shuffled_images()
    splits = episodes(x, y).data.splits
    assert {split: len(classes) for split, classes in splits.items()} == {"train": 4, "validation": 2, "test": 3}
    assert torch.cat(list(splits.values())).sort().values.tolist() == list(range(9))
    torch.testing.assert_close(episodes(x, y, seed=1).data.splits, splits)
    others = [episodes(x, y, split_seed=seed).data.splits["test"].tolist() for seed in range(10)]
    assert len({tuple(classes) for classes in others}) > 5


def test_there_may_be_no_validation() -> None:
    x, y = shuffled_images()
    data = episodes(x, y, validation_classes=0)
    data.setup("fit")
    assert not data.has_validation()
    assert len(data.data.splits["train"]) == 6


X, Y = shuffled_images()
NOT_FINITE = X.astype(np.float64)
NOT_FINITE[5], NOT_FINITE[9, 0, 0, 0] = np.nan, 1e300
REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "lengths": (X, Y[1:], {}, "data.x holds 63 examples, but data.y 62 labels"),
    "shape of x": (np.zeros(63), Y, {}, "data.x has shape (63,), expected (examples, ...)"),
    "complex": (X + 1j, Y, {}, "give two channels, as with numpy.stack([x.real, x.imag], 1)"),
    "masked": (np.ma.masked_greater(X, 250), Y, {}, "x.filled(0)"),
    "ragged": ([[1.0, 2.0], [3.0]] * 30, Y, {}, "give examples of one shape, padded where they differ"),
    "objects": (X.astype(object), Y, {}, "data.x holds object"),
    "not finite": (NOT_FINITE, Y, {}, "not finite (in float32) in 2 of its examples, the first of which is example 5"),
    "type of y": (X, np.zeros(63), {}, "data.y holds float64 of shape (63,), expected integers or strings"),
    "objects in y": (X, np.array([None, *Y[1:]], dtype=object), {}, "leave out examples without a label"),
    "real y": (X, np.arange(63) / 2, {}, "real values are targets of a regression"),
    "column": (X, np.zeros((63, 1), int), {}, "give y[:, 0]"),
    "one way": (X, Y, {"ways": 1}, "data.ways is 1, expected at least 2"),
    "shape of y": (X, np.eye(63, dtype=int), {}, "data.y holds int64 of shape (63, 63)"),
    "nothing": (X[:0], Y[:0], {}, "data.y holds 0 classes"),
    "held out": (X, Y, {"test_classes": 7}, "is 2 and data.test_classes is 7, but data.y holds 9 classes"),
    "less than none": (X, Y, {"validation_classes": -1}, "data.validation_classes is -1"),
    "ways": (X, Y, {"ways": 4}, "data.ways is 4, but the validation split has 2 classes"),
    "ways at test": (X, Y, {"ways": 3, "test_classes": 2, "validation_classes": 3}, "the test split has 2 classes"),
    "examples": (
        X,
        Y,
        {"shots": 6},
        "6 shots + 3 queries = 9 examples of each of 2 classes, but 0 of the 4 classes of",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_make_no_tasks_are_refused(case: str) -> None:
    x, y, changes, said = REFUSED[case]
    with pytest.raises(MetaLearningError) as error:
        episodes(x, y, **changes).setup("fit")
    assert said in str(error.value)


def test_classes_that_are_too_small_for_a_task_are_left_out_and_named() -> None:
    every = episodes(X, Y, validation_classes=0, test_classes=4).data.splits
    data = episodes(X, Y, shots=4, train_shots=3, validation_classes=0, test_classes=4)
    small = [f"{NAMES[place]} ({COUNTS[place]})" for place in every["test"] if COUNTS[place] < 7]
    with pytest.warns(UserWarning) as told:
        data.setup("fit")
    data.setup("test")  # says no more
    assert [str(warning.message) for warning in told] == [
        f"{len(small)} of 9 classes have fewer examples than a task needs and are left out: {', '.join(small)}"
    ]
    kept = data.data.splits
    assert torch.equal(kept["train"], every["train"]) and 2 <= len(kept["test"]) == 4 - len(small)
    assert set(data.draw("test", torch.arange(200)).classes.unique().tolist()) == set(range(len(kept["test"])))


def test_what_the_classes_can_fill_is_said() -> None:
    data = episodes(X, Y, shots=6, ways=3, test_classes=0, validation_classes=0, test_tasks=0)
    with pytest.raises(MetaLearningError, match="and 3 have 8 or more: lower data.shots or data.queries"):
        data.setup("fit")


def test_classes_of_unequal_sizes_give_all_their_examples() -> None:
    x = np.arange(63, dtype=np.float64)[:, None]
    y = NAMES.repeat(COUNTS)
    data = episodes(x, y)
    episode = data.draw("train", torch.arange(500))
    seen = torch.cat([episode.support_x, episode.query_x], 1).unique()
    assert len(seen) == int(COUNTS[data.data.splits["train"]].sum())


def test_a_training_task_may_have_more_classes_than_a_test_task() -> None:
    data = episodes(X, Y, train_ways=4, validation_classes=2, test_classes=3)
    for split, ways in {"train": 4, "validation": 2, "test": 2}.items():
        episode = data.draw(split, torch.arange(3))  # type: ignore[arg-type]
        assert data.ways_in(split) == ways  # type: ignore[arg-type]
        assert episode.classes.shape == (3, ways) and episode.support_y.shape == (3, 2 * ways)
        assert episode.query_y[0].tolist() == torch.arange(ways).repeat_interleave(3).tolist()
    assert_same(data.draw("test", torch.arange(9)), episodes(X, Y).draw("test", torch.arange(9)))
    with pytest.raises(
        MetaLearningError, match="data.train_ways is 5, but the train split has 4 classes: lower data.tr"
    ):
        episodes(X, Y, train_ways=5).setup("fit")
    with pytest.raises(MetaLearningError, match="data.train_ways is 0, expected at least 1"):
        episodes(X, Y, train_ways=0)


def test_a_fit_without_a_test_needs_no_test_classes() -> None:
    episodes(X, Y, ways=3, test_classes=2, validation_classes=3, test_tasks=0).setup("fit")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"", "cannot be read as a .npy file"),
        (b"x,y\n1,2\n", "cannot be read as a .npy file"),
        (np.array([{}]), "Object arrays"),
        ({"x": X}, "it holds several arrays"),
        (X, "cannot be read as a .npy file"),  # cut short below
        ("pipe", "it is not a regular file"),
    ],
)
def test_files_that_hold_no_array_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        with path.open("wb") as stream:
            np.savez(stream, **content)
    elif isinstance(content, str):
        os.mkfifo(path)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
        if content is X:
            path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MetaLearningError, match="data.x is ") as error:
        episodes(str(path), Y).setup("fit")
    assert said in str(error.value)


@pytest.mark.slow
def test_a_vector_classifier_learns_to_tell_clusters_apart(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, 1, 8))
    x = (centres + 0.2 * generator.normal(size=(60, 10, 8))).reshape(-1, 8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(60).repeat(10))
    arguments = ["--data=ArrayEpisodes", f"--data.x={tmp_path / 'x.npy'}", f"--data.y={tmp_path / 'y.npy'}"]
    arguments += ["--data.validation_classes=10", "--data.test_classes=10", "--data.shots=2"]
    arguments += ["--data.meta_batch_size=16", "--data.test_tasks=50", "--data.validation_tasks=10", "--model=MAML"]
    arguments += ["--model.backbone=lightning_meta.backbones.MLP", "--model.backbone.inputs=8"]
    arguments += ["--model.backbone.hidden=[64,64]", "--model.inner.optimizer.lr=0.1", "--model.compile=false"]
    arguments += ["--model.inner.evaluation_steps=5", "--model.task_chunk=16", "--trainer.max_steps=100"]
    arguments += ["--trainer.val_check_interval=100", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *SHORT_RUN]) == 0
    (path,) = tmp_path.rglob("results.json")
    (entry,) = json.loads(path.read_text())
    accuracy = entry["metrics"]["query_accuracy"]
    assert accuracy["mean"][0] < 0.4 and accuracy["mean"][-1] > 0.9  # one in five by chance
    assert path.parents[1].joinpath("adaptation.png").exists()


def test_images_of_many_bands_have_no_picture(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 5, 4, 4))  # which matplotlib could not draw
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(10).repeat(4).astype(str))
    arguments = ["--data=ArrayEpisodes", f"--data.x={tmp_path / 'x.npy'}", f"--data.y={tmp_path / 'y.npy'}"]
    arguments += ["--data.validation_classes=0", "--data.test_classes=3", "--data.ways=3", "--data.test_tasks=2"]
    arguments += ["--data.meta_batch_size=2", "--model=MAML", "--model.backbone=lightning_meta.backbones.MLP"]
    arguments += ["--model.backbone.inputs=80", "--model.inner.evaluation_steps=1", "--model.compile=false"]
    arguments += ["--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *SHORT_RUN]) == 0
    assert {path.name for path in tmp_path.rglob("*.png")} == {"adaptation.png", "confusion.png"}


def test_token_ids_stay_integers_and_strings_of_pandas_are_labels() -> None:
    data = episodes(X.reshape(63, 16).astype(np.int32), Y.astype(object))
    assert data.draw("train", torch.arange(5)).support_x.dtype == torch.int64
    assert data.data.names == sorted(NAMES)


def test_a_file_names_the_classes_of_each_split(tmp_path: Path) -> None:
    path = tmp_path / "splits.yaml"
    path.write_text("train: [ash, birch, cedar]\nval: [elm, fir]\ntest: train\n")
    given: Any = {"validation_classes": 0, "test_classes": 0, "split_file": str(path)}
    data = episodes(X, Y, **given)
    data.setup("fit")
    found = {split: [NAMES[place] for place in places] for split, places in data.data.splits.items()}
    assert found == {"train": ["ash", "birch", "cedar"], "validation": ["elm", "fir"], "test": found["train"]}
    path.write_text("train: [ash]\ntest: [ash]\n")
    with pytest.raises(MetaLearningError, match="names class ash twice: name it once, or"):
        episodes(X, Y, **given).setup("fit")


def test_integers_beyond_those_of_pytorch_are_refused() -> None:
    x = np.full((12, 3), 2**63, dtype=np.uint64)
    with pytest.raises(MetaLearningError, match="data.x holds 9223372036854775808, more than a 64-bit integer"):
        ArrayEpisodes(x=x, y=np.arange(6).repeat(2), validation_classes=2, test_classes=2, ways=2).setup("fit")
