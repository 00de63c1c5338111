"""Data that are broken on purpose: each leak is found, and nothing is found in data without one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_meta.data import ImageEpisodes, QuadraticEpisodes, SinusoidEpisodes
from lightning_meta.data.drawing.images import ClassImages
from lightning_meta.data.drawing.sampler import TaskDataset, TaskSampler
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.data.leaks import Finding, find_leaks
from lightning_meta.episode import UNKNOWN_CLASS, Episode, Split

SPLITS: dict[Split, Tensor] = {
    "train": torch.arange(12), "validation": torch.arange(12, 18), "test": torch.arange(18, 26)
}  # fmt: skip
EACH = 6  # images of a class

CLASSES, PICTURES, TWINS = "classes in two splits, by name", "pictures in two splits", "equal pictures in one split"
SUPPORT, IN_TASKS = "tasks with a query in the support set", "pictures in tasks of two splits"
LABELS, TWICE = "tasks with uneven labels", "tasks with one class twice"
ORDER, RANKS = "labels in the order of the classes, {}", "tasks on two ranks or in two splits"


class Images(ImageEpisodes):
    """Image [[class, drawing], [7, 255]]; tasks of three ways."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(**({"ways": 3, "shots": 2, "queries": 2, "meta_batch_size": 4} | changes))

    def load(self) -> ClassImages:
        places = torch.arange(26 * EACH)
        pixels = torch.stack([places // EACH, places % EACH, torch.full_like(places, 7), torch.full_like(places, 255)])
        images = pixels.T.reshape(-1, 1, 2, 2).to(torch.uint8)
        return ClassImages(images, torch.arange(26) * EACH, torch.full((26,), EACH), dict(SPLITS))


def found(data: Any, tasks: int = 60) -> dict[str, Finding]:
    return {finding.what: finding for finding in find_leaks(data, tasks)}


def leaking(findings: dict[str, Finding]) -> set[str]:
    return {what for what, finding in findings.items() if finding.leaks}


@pytest.mark.parametrize("rotations", ["none", "classes", "tasks"])
@pytest.mark.parametrize("changes", [{}, {"train_queries": 0}, {"train_ways": 5}, {"meta_batch_size": 1}])
def test_data_without_a_leak(rotations: Any, changes: dict[str, Any]) -> None:
    findings = found(Images(rotations=rotations, **changes))
    assert not leaking(findings)
    orders = [ORDER.format(split) for split in SPLITS]
    assert list(findings) == [CLASSES, PICTURES, TWINS, SUPPORT, IN_TASKS, LABELS, *orders, RANKS]
    assert findings[CLASSES].compared == "12 train, 6 validation, 8 test classes"
    assert findings[PICTURES].compared == "72 train, 36 validation, 48 test pictures"
    assert [finding.found for finding in findings.values()][:6] == ["0", "0", "0", "0", "0", "0"]
    ranks = 1 if changes.get("meta_batch_size") else 2
    assert findings[RANKS].compared.endswith(f"tasks, {ranks} rank{'s' * (ranks > 1)}")


class SharedClass(Images):
    def load(self) -> ClassImages:
        data = super().load()
        return data._replace(splits=data.splits | {"test": torch.arange(17, 26)}, names=[f"c{i}" for i in range(26)])


def test_a_class_in_two_splits_is_named() -> None:
    findings = found(SharedClass())
    assert leaking(findings) == {CLASSES, PICTURES, IN_TASKS}
    assert findings[CLASSES].examples == ("validation and test share 1 of 9 classes: c17",)
    assert findings[PICTURES].found == f"{EACH}"


class SharedPicture(Images):
    def load(self) -> ClassImages:
        data = super().load()
        data.images[20 * EACH + 3] = data.images[5 * EACH + 1]
        return data


def test_a_picture_that_stands_under_two_classes_of_two_splits_is_named() -> None:
    findings = found(SharedPicture())
    assert {PICTURES} <= leaking(findings) <= {PICTURES, IN_TASKS}
    assert findings[PICTURES].found == "1"
    assert findings[PICTURES].examples == ("the same picture: train class 5, number 1 and test class 20, number 3",)


class Twins(Images):
    """Every class has its first picture twice, as published data sets have some."""

    def load(self) -> ClassImages:
        data = super().load()
        data.images[1::EACH] = data.images[::EACH]
        return data._replace(moments=torch.tensor([0.4, 0.2]).view(2, 1, 1, 1))


@pytest.mark.parametrize("rotations", ["none", "classes", "tasks"])
def test_what_a_data_set_repeats_in_a_class_is_noted_and_no_leak(rotations: Any) -> None:
    findings = found(Twins(rotations=rotations))
    assert not leaking(findings)
    assert findings[TWINS].found == "26 that the data set itself repeats"
    assert findings[SUPPORT].found == "0"


class RepeatsSupport(Images):
    """Task 7 of the test asks for a support picture."""

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        episode = super().draw(split, numbers)
        if split == "test":
            episode.query_x[numbers == 7, 0] = episode.support_x[numbers == 7, 1]
        return episode


class Augmented(Images):
    """No augmented picture is like another."""

    def transform(self, split: Split, numbers: Tensor, images: Tensor) -> Tensor:
        return images / 255 + torch.rand(images.shape)


def test_a_query_that_is_in_the_support_set_is_found() -> None:
    findings = found(RepeatsSupport())
    assert leaking(findings) == {SUPPORT}
    assert (findings[SUPPORT].found, findings[SUPPORT].examples) == ("1", ("test task 7",))


def test_a_repeated_picture_is_found_beneath_its_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sampler would repeat one, whose copies a random transform then makes different."""
    choose = TaskRandom.choose

    def repeating(self: TaskRandom, population: Any, size: int, shape: Any = ()) -> Tensor:
        chosen = choose(self, population, size, shape)
        return chosen[..., :1].expand_as(chosen) if shape else chosen

    assert not leaking(found(Augmented()))
    monkeypatch.setattr(TaskRandom, "choose", repeating)
    assert SUPPORT in leaking(found(Augmented()))


class TrainingInTests(Images):
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        return super().draw("train" if split == "test" else split, numbers)


def test_test_tasks_of_training_classes_are_found_although_the_lists_are_apart() -> None:
    findings = found(TrainingInTests())
    assert leaking(findings) == {IN_TASKS, RANKS}
    assert "train, rank 1, and test, rank 1, have " in " ".join(findings[RANKS].examples)


def skewed(episode: Episode) -> Episode:
    query_y = episode.query_y.clone()
    query_y[:, -1] = 0
    return episode._replace(query_y=query_y)


def shifted(episode: Episode) -> Episode:
    return episode._replace(support_y=episode.support_y + 1, query_y=episode.query_y + 1)


def in_order(episode: Episode) -> Episode:
    """The class with the lowest number always has label 0."""
    order = episode.classes.argsort(-1)
    tasks = torch.arange(episode.tasks)[:, None]

    def reordered(x: Tensor) -> Tensor:
        return x.unflatten(1, (order.shape[1], -1))[tasks, order].flatten(1, 2)

    return episode._replace(
        support_x=reordered(episode.support_x),
        query_x=reordered(episode.query_x),
        classes=episode.classes[tasks, order],
    )


def first_label_low(episode: Episode) -> Episode:
    """Two labels change places wherever the first has the higher class, which is a smaller bias."""
    sorted_ = in_order(episode)
    low = (episode.classes[:, 0] < episode.classes[:, 1])[:, None]
    return episode._replace(classes=torch.where(low, episode.classes, sorted_.classes))


def one_class(episode: Episode) -> Episode:
    return episode._replace(classes=episode.classes[:, :1].expand_as(episode.classes))


@pytest.mark.parametrize(
    ("change", "leak"),
    [
        (skewed, {LABELS}),
        (shifted, {LABELS}),
        (in_order, {ORDER.format(split) for split in SPLITS}),
        (first_label_low, {ORDER.format(split) for split in SPLITS}),
        (one_class, {TWICE}),
    ],
)
def test_labels_that_say_more_than_they_should_are_found(
    change: Callable[[Episode], Episode], leak: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Images.draw
    monkeypatch.setattr(Images, "draw", lambda self, split, numbers: change(draw(self, split, numbers)))
    assert leaking(found(Images(validation_tasks=200), 200)) == leak


def test_the_order_of_labels_is_left_out_where_classes_have_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(episode: Episode) -> Episode:
        return episode._replace(classes=torch.full_like(episode.classes, UNKNOWN_CLASS))

    draw = Images.draw
    monkeypatch.setattr(Images, "draw", lambda self, split, numbers: without(draw(self, split, numbers)))
    findings = found(Images())
    assert not leaking(findings)
    assert list(findings) == [CLASSES, PICTURES, TWINS, SUPPORT, IN_TASKS, LABELS, RANKS]


class SameOnEveryRank(Images):
    """A sampler that takes no notice of its rank."""

    def train_dataloader(self) -> DataLoader[Episode]:
        class Blind(TaskSampler):
            def __iter__(self) -> Any:
                return ((torch.arange(batch * 2, batch * 2 + 2), 0) for batch in range(self.batches))

        return DataLoader(TaskDataset(self, "train"), batch_size=None, sampler=Blind(self, 15, 4))


class SameContent(Images):
    """Numbers that differ, and tasks that do not."""

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        return super().draw(split, numbers // 2 * 2)._replace(task_ids=numbers)


def test_ranks_that_draw_the_same_tasks_are_found() -> None:
    by_number, by_content = found(SameOnEveryRank()), found(SameContent())
    assert leaking(by_number) == leaking(by_content) == {RANKS}
    assert by_number[RANKS].examples[0] == "train task 0 is on 2 ranks"
    assert by_content[RANKS].examples[0] == "train, rank 0, and train, rank 1, have 30 equal tasks"


class FewPictures(Images):
    """Two classes of two pictures a split, so that tasks are equal by chance."""

    def __init__(self) -> None:
        super().__init__(ways=2, shots=1, queries=1)

    def load(self) -> ClassImages:
        data = super().load()
        splits = {split: classes[:2] for split, classes in data.splits.items()}
        return data._replace(splits=splits, counts=torch.full((26,), 2))


def test_tasks_that_are_equal_by_chance_are_no_leak() -> None:
    findings = found(FewPictures(), 200)
    assert not leaking(findings)
    assert "by chance, of so few pictures" in findings[RANKS].found


class FewPicturesTwice(FewPictures):
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        return super().draw("train" if split == "test" and numbers.numel() and numbers[0] < 4 else split, numbers)


def test_chance_is_no_excuse_between_splits() -> None:
    assert leaking(found(FewPicturesTwice(), 200)) == {IN_TASKS, RANKS}


class RepeatedPoints(SinusoidEpisodes):
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        episode = super().draw(split, numbers)
        return episode._replace(query_x=episode.support_x, query_y=episode.support_y)


class OneStream(SinusoidEpisodes):
    def draw(self, split: Split, numbers: Tensor) -> Episode:
        return super().draw("train", numbers)


def test_tasks_of_functions_are_compared_as_a_whole() -> None:
    assert list(found(SinusoidEpisodes())) == [SUPPORT, RANKS]
    assert not leaking(found(SinusoidEpisodes()))
    assert leaking(found(RepeatedPoints())) == {SUPPORT}
    assert leaking(found(OneStream())) == {RANKS}
    quadratics = found(QuadraticEpisodes(meta_batch_size=20))
    assert not leaking(quadratics)
    assert quadratics[SUPPORT].found.endswith(" on purpose")
