"""Whether data leak: classes, pictures or tasks on two sides that have to be apart, and labels that say too much.

What is compared is what a run gets: the tasks of the data module's own loaders, as each of several ranks has them, and
for a data set of images every image of every split. Two pictures are the same where all of their bytes are.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.images import ImageEpisodes
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.leaks.drawn_tasks import DrawnTasks, RankTrainer, digests, draw_tasks
from lightning_meta.episode import Split

FALSE_ALARM = 1e-6  # chance that labels in random order are called ordered
EXAMPLES = 5  # that a finding names


class Finding(NamedTuple):
    """The outcome of one check."""

    what: str  # was looked for
    compared: str  # in how much
    found: str
    leaks: bool
    examples: tuple[str, ...] = ()  # of what was found


def find_leaks(data: EpisodeDataModule, tasks: int = 200) -> list[Finding]:
    """Compare the splits, the tasks and the ranks of data with each other.

    Args:
        data: any data module; it is left as it is, but for files that it downloads or caches.
        tasks: how many tasks of each split are drawn, at least, where it has as many.

    Returns:
        What was compared and found, one entry for each check that applies to the data.

    Raises:
        MetaLearningError: the data are missing or cannot make a task.
    """
    ranks = next((number for number in range(2, data.meta_batch_size + 1) if data.meta_batch_size % number == 0), 1)
    trainer = RankTrainer(ranks, -(-tasks // data.meta_batch_size))
    data = copy.copy(data)  # another trainer may have it
    data.trainer = trainer
    data.prepare_data()
    for stage in ("fit", "test") if data.test_tasks else ("fit",):
        data.setup(stage)
    findings: list[Finding] = []
    twins: frozenset[bytes] = frozenset()
    names = {split: named for split in _splits(data) if (named := data.class_names(split)) is not None}
    if len(names) > 1:
        findings.append(_shared_classes(data, names))
    if isinstance(data, ImageEpisodes):
        whole, twins = _whole_images(data)
        findings += whole
        data.transform = _unchanged  # type: ignore[method-assign]  # an augmented copy would look like another picture
    drawn = {split: draw_tasks(data, split, trainer, tasks, twins) for split in _splits(data)}
    return [*findings, *_of_tasks(data, drawn), _shared_tasks(data, drawn)]


def _unchanged(split: Split, numbers: Tensor, images: Tensor) -> Tensor:
    return images


def _splits(data: EpisodeDataModule) -> list[Split]:
    """The splits that a run draws from."""
    drawn = {"train": True, "validation": data.has_validation(), "test": data.test_tasks > 0}
    return [split for split in SPLITS if drawn[split]]


def _counts(sizes: Mapping[Split, int], unit: str) -> str:
    return ", ".join(f"{size:,} {split}" for split, size in sizes.items()) + f" {unit}"


def _shared_classes(data: EpisodeDataModule, names: Mapping[Split, list[str]]) -> Finding:
    pairs = [(one, other, sorted(set(names[one]) & set(names[other]))) for one, other in combinations(names, 2)]
    shared = {name for *_, both in pairs for name in both}
    on_purpose = data.classes_shared and bool(shared)
    return Finding(
        "classes in two splits, by name",
        _counts({split: len(of_split) for split, of_split in names.items()}, "classes"),
        f"{len(shared):,}" + (" on purpose: the splits differ in their pictures alone" if on_purpose else ""),
        bool(shared) and not on_purpose,
        tuple(
            f"{one} and {other} share {len(both):,} of {len(set(names[other])):,} classes: {_few(both)}"
            for one, other, both in pairs
            if both and not on_purpose
        ),
    )


def _whole_images(data: ImageEpisodes) -> tuple[list[Finding], frozenset[bytes]]:
    """Every image of every split by content, and digests of the inputs that are made of those that stand twice."""
    places: dict[bytes, list[tuple[Split, str, int]]] = {}
    first: dict[bytes, tuple[Tensor, int]] = {}
    sizes: Counter[Split] = Counter()
    for split in (split for split in SPLITS if split in data.data.splits):
        for name, images in zip(data.class_names(split), data.class_images(split), strict=True):
            for row, digest in enumerate(digests(images)):
                places.setdefault(digest, []).append((split, name, row))
                first.setdefault(digest, (images, row))
            sizes[split] += len(images)
    repeated = {digest: at for digest, at in places.items() if len(at) > 1}
    across = [at for at in repeated.values() if len({split for split, *_ in at}) > 1]
    within = [at for at in repeated.values() if len({split for split, *_ in at}) == 1]
    turns = range(1 if data.rotations == "none" else 4)
    twice = [images[row] for images, row in map(first.__getitem__, repeated)]
    turned = [image.rot90(turn, (-2, -1)) if turn else image for image in twice for turn in turns]
    twins = frozenset(digests(data.inputs(torch.stack(turned)))) if turned else frozenset[bytes]()
    return [
        Finding(
            "pictures in two splits", _counts(sizes, "pictures"), f"{len(across):,}", bool(across), _places(across)
        ),
        Finding(
            "equal pictures in one split",
            f"{sizes.total():,} pictures",
            f"{len(within):,}" + (" that the data set itself repeats" if within else ""),
            False,
            _places(within),
        ),
    ], twins


def _places(repeated: list[list[tuple[Split, str, int]]]) -> tuple[str, ...]:
    return tuple(
        "the same picture: " + " and ".join(f"{split} class {name}, number {row}" for split, name, row in at)
        for at in repeated[:EXAMPLES]
    )


def _of_tasks(data: EpisodeDataModule, drawn: Mapping[Split, DrawnTasks]) -> Iterator[Finding]:
    """What the tasks of every split show by themselves and beside those of the other splits."""
    tasks = _counts({split: of_split.tasks for split, of_split in drawn.items()}, "tasks")
    rows = f"{sum(of_split.rows for of_split in drawn.values()):,} rows of {tasks}"
    shared = [f"{split} task {number}" for split, of_split in drawn.items() for number in of_split.shared]
    on_purpose = data.queries_are_support and bool(shared)
    found = f"{len(shared):,}" + (" on purpose" if on_purpose else "")
    leaks = bool(shared) and not on_purpose
    yield Finding("tasks with a query in the support set", rows, found, leaks, (_few(shared),) if leaks else ())
    if not all(of_split.labelled for of_split in drawn.values()):
        return
    common = {pair: len(drawn[pair[0]].inputs & drawn[pair[1]].inputs) for pair in combinations(drawn, 2)}
    examples = tuple(f"{one} and {other} share {number:,}" for (one, other), number in common.items() if number)
    yield Finding("pictures in tasks of two splits", rows, f"{sum(common.values()):,}", bool(examples), examples)
    wrong = [f"{split} task {number}" for split, of_split in drawn.items() for number in of_split.uneven]
    yield Finding("tasks with uneven labels", tasks, f"{len(wrong):,}", bool(wrong), (_few(wrong),))
    twice = [f"{split} task {number}" for split, of_split in drawn.items() for number in of_split.repeated]
    if twice:
        yield Finding("tasks with one class twice", tasks, f"{len(twice):,}", True, (_few(twice),))
    for split, of_split in drawn.items():
        if of_split.order is not None:
            yield _label_order(split, of_split.order)


def _label_order(split: Split, order: np.ndarray) -> Finding:
    """Whether the place of a class among those of its task says its label: Anderson's test of random rankings.

    R. L. Anderson, "Use of contingency tables in the analysis of consumer preference studies", Biometrics 1959.
    """
    ways, tasks = len(order), order[0].sum()
    expected, freedom = tasks / ways, (ways - 1) ** 2
    statistic = float((ways - 1) / ways * ((order - expected) ** 2 / expected).sum())
    bound = float(stats.chi2.isf(FALSE_ALARM, freedom))
    return Finding(
        f"labels in the order of the classes, {split}",
        f"{int(tasks):,} tasks",
        f"chi-square {statistic:.1f}, bound {bound:.1f}",
        statistic > bound,
    )


def _shared_tasks(data: EpisodeDataModule, drawn: Mapping[Split, DrawnTasks]) -> Finding:
    """Whether two ranks or two splits have a task in common, by number and by content."""
    ranks = len(next(iter(drawn.values())).numbers)
    examples: list[str] = []
    found = by_chance = 0
    for split, of_split in drawn.items():
        numbers = Counter(number for of_rank in of_split.numbers for number in set(of_rank))
        twice = [number for number, times in numbers.items() if times > 1]
        found += len(twice)
        examples += [f"{split} task {number} is on {numbers[number]} ranks" for number in twice]
    streams = {(split, rank): of.contents[rank] for split, of in drawn.items() for rank in range(ranks)}
    for one, other in combinations(streams, 2):
        left, right = Counter(streams[one]), Counter(streams[other])
        equal = sum(times * right[content] for content, times in left.items())
        chance = _chance_of_equal_tasks(data, one[0]) if one[0] == other[0] else 0.0
        if equal > stats.poisson.isf(FALSE_ALARM, chance * left.total() * right.total()):
            found += equal
            examples.append(f"{_stream(one)} and {_stream(other)} have {equal:,} equal tasks")
        else:
            by_chance += equal
    compared = f"{sum(of.tasks for of in drawn.values()):,} tasks, {ranks} rank{'s' * (ranks > 1)}"
    shown = f"{found:,}" + (f", and {by_chance:,} by chance, of so few pictures" if by_chance else "")
    return Finding("tasks on two ranks or in two splits", compared, shown, found > 0, tuple(examples[:EXAMPLES]))


def _stream(place: tuple[Split, int]) -> str:
    return f"{place[0]}, rank {place[1]},"


def _chance_of_equal_tasks(data: EpisodeDataModule, split: Split) -> float:
    """Largest chance that two tasks are equal where classes and pictures are drawn at random; 0 for other data."""
    if not isinstance(data, ImageEpisodes):
        return 0.0
    counts, ways = data.data.counts[data.data.splits[split]], data.ways_in(split)
    turns = 4 if data.rotations == "classes" and split == "train" else 1
    of_a_class = math.perm(int(counts.min()), data.shots_in(split) + data.queries_in(split))
    return 1 / (math.perm(len(counts) * turns, ways) * of_a_class**ways)


def _few(names: list[str]) -> str:
    left = len(names) - EXAMPLES
    return ", ".join(names[:EXAMPLES]) + (f" and {left:,} more" if left > 0 else "")
