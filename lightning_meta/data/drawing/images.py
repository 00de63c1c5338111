"""Episodes of images: the one sampler that serves every data set of labelled examples."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule, check_at_least
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.data.files.class_splits import few
from lightning_meta.data.files.image_cache import CACHE_FOLDER, MAX_IN_MEMORY
from lightning_meta.episode import Episode, Split
from lightning_meta.errors import MetaLearningError

_MOST_TOGETHER = 16  # training batches that a GPU gets by one draw, whose many small operations take the host's time
_AHEAD = 2**28  # bytes of GPU memory that they may take as floats; copies on the way come on top

Rotations = Literal["none", "classes", "tasks"]
CacheDevice = Literal["auto", "cpu"]


class ClassImages(NamedTuple):
    """All images of a data set, sorted by class, and the classes of every split."""

    images: Tensor  # uint8 (images, channels, height, width), scaled to [0, 1]; or floats (examples, ...), unchanged
    starts: Tensor  # (classes,): the first image of each class
    counts: Tensor  # (classes,): how many images it has
    splits: dict[Split, Tensor]  # split -> its classes
    moments: Tensor | None = None  # (2, channels, 1, 1): mean and standard deviation of values in 0..1 to normalise by
    names: list[str] | None = None  # of the classes, for messages
    background: float | None = None  # brightness around what is drawn, as in `Preprocessing`


@dataclass(kw_only=True, eq=False)
class ImageEpisodes(EpisodeDataModule):
    """Few-shot classification of images. A subclass says where the images come from (`load`).

    Classes with fewer images than a task of their split needs are left out; this happens after the split, so that the
    number of shots never moves a class from one split to another.

    Args:
        rotations: ``none``; ``classes``: every class turned by 90, 180 and 270 degrees is a further class in training
            (Nichol et al.); ``tasks``: every class of a task is turned by a random multiple of 90 degrees, in all
            splits (Finn et al.).
        cache_device: ``auto`` keeps all images on the GPU, where there is one with room, and draws episodes there;
            ``cpu`` keeps them in main memory. Worker processes (``num_workers``) draw in main memory.
    """

    rotations: Rotations = "none"
    cache_device: CacheDevice = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(2, ways=self.ways, train_ways=self.ways_in("train"))  # one class alone leaves no choice
        self._data: ClassImages | None = None
        self._every_class: dict[Split, Tensor] = {}  # of the splits, also those that have too few images for a task
        self._reported = False

    @property
    def outputs(self) -> int:
        """One output for each way."""
        return self.ways

    @property
    def train_class_count(self) -> int:
        """Classes in the training split; with rotations, each turn of a class is one of its own."""
        return len(self.data.splits["train"]) * (1 if self.rotations == "none" else 4)

    @abstractmethod
    def load(self) -> ClassImages:
        """Read or make the images; called once, when they are first needed."""

    @property
    def data(self) -> ClassImages:
        """The images, loaded on first use, and the classes with enough of them for a task.

        With rotations, all images are there in each of the four turns, turn by turn.
        """
        if self._data is None:
            self._data = self._with_large_classes(self.load())
            if self.rotations != "none":
                images = self._data.images
                self._data = self._data._replace(images=torch.cat([images.rot90(turn, (-2, -1)) for turn in range(4)]))
        return self._data

    def class_names(self, split: Split) -> list[str]:
        """Names of the classes of a split, or their places in the data, also of those with too few images."""
        data = self.data
        places: list[int] = self._every_class[split].tolist()
        return [data.names[place] if data.names else str(place) for place in places]

    def class_images(self, split: Split) -> Iterator[Tensor]:
        """The images of every class of a split as `load` gave them, also of those with too few; not turned."""
        data = self.data
        for place in self._every_class[split].tolist():
            yield data.images[data.starts[place] : data.starts[place] + data.counts[place]]

    def _with_large_classes(self, data: ClassImages) -> ClassImages:
        self._every_class = data.splits
        needed = {split: self.shots_in(split) + self.queries_in(split) for split in data.splits}
        large = {split: classes[data.counts[classes] >= needed[split]] for split, classes in data.splits.items()}
        return data._replace(splits=large)

    def setup(self, stage: str) -> None:
        """Load the images, refuse tasks that they cannot fill, and name the classes that are too small for a task."""
        super().setup(stage)
        splits: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "validation", "test"), "validate": ("validation",), "test": ("test",),
            "predict": ("test",),
        }  # fmt: skip
        asked_for = {"train": True, "validation": self.has_validation(), "test": self.test_tasks > 0}
        for split in splits[stage]:
            if asked_for[split]:  # the test after a fit, too, before the fit
                self._check_fits(split)
        self._report_left_out()

        self._place_images(self.draws_to if self.cache_device == "auto" else torch.device("cpu"))

    def _place_images(self, device: torch.device) -> None:
        """Put the images where episodes are drawn, if they fit there; an earlier run may have left them on a GPU."""
        data, self.drawn_together = self.data, 1
        if device.type == "cuda" and data.images.device != device:
            fits = data.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4
            device = device if fits else torch.device("cpu")
        if device.type == "cuda":
            examples = self.ways_in("train") * (self.shots_in("train") + self.queries_in("train"))
            batch = 4 * self.meta_batch_size * examples * data.images[0].numel()
            self.drawn_together = max(min(_AHEAD // batch, _MOST_TOGETHER), 1)
        moments = None if data.moments is None else data.moments.to(device)
        self._data = data._replace(images=data.images.to(device), moments=moments)

    def _check_fits(self, split: Split) -> None:
        data, ways, turns = self.data, self.ways_in(split), self._turns(split)
        every, usable = self._every_class[split], len(data.splits[split])
        fewer_ways = [f"lower {self.ways_setting(split)}"] if usable else []
        skipped = [] if split == "train" else [f"set data.{split}_tasks to 0 for a fit that skips the {split}"]
        if ways > len(every) * turns:
            raise MetaLearningError(
                f"{self.ways_setting(split)} is {ways}, but the {split} split has {len(every) * turns} classes: "
                + ", or ".join([*fewer_ways, self.more_classes(split), *skipped])
            )
        if ways > usable * turns:
            shots, queries = self.shots_in(split), self.queries_in(split)
            largest = data.counts[every].sort(descending=True).values[-(-ways // turns) - 1]
            fewer_examples = "lower data.shots or data.queries"
            if split == "train":
                fewer_examples += " (or data.train_shots, data.train_queries)"
            raise MetaLearningError(
                f"a {split} task needs {shots} shots + {queries} queries = {shots + queries} examples of each of "
                f"{ways} classes, but {usable * turns} of the {len(every) * turns} classes of the split have as many, "
                f"and {ways} have {largest} or more: " + ", or ".join([fewer_examples, *fewer_ways, *skipped])
            )

    def _report_left_out(self) -> None:
        """Name the classes without a task, once."""
        data = self.data
        every, usable = (set(torch.cat(list(of.values())).tolist()) for of in (self._every_class, data.splits))
        small = sorted(every - usable | set((data.counts == 0).nonzero()[:, 0].tolist()))
        if small and not self._reported:
            named = [f"{data.names[place] if data.names else place} ({data.counts[place]})" for place in small]
            rank_zero_warn(
                f"{len(small):,} of {len(data.counts):,} classes have fewer examples than a task needs and "
                f"are left out: {few(named)}"
            )
        self._reported = True

    def _turns(self, split: Split) -> int:
        return 4 if self.rotations == "classes" and split == "train" else 1

    def transform(self, split: Split, numbers: Tensor, images: Tensor) -> Tensor:
        """The images of tasks, which a subclass may augment: a pure function of seed, split, number and images.

        Args:
            split: of the tasks.
            numbers: of the tasks, shape (tasks,).
            images: as `load` gave them, shape (tasks, ways, shots + queries, ...).

        Returns:
            The same shape; uint8, which is then scaled to [0, 1], or floats.
        """
        return images

    def inputs(self, images: Tensor) -> Tensor:
        """What a network gets of images as `load` gave them: scaled, and normalised where there are moments."""
        x = images
        if x.dtype != torch.int64:  # which an embedding takes
            x = x.float().div_(255) if x.dtype == torch.uint8 else x.float()
        if self.data.moments is not None:
            x.sub_(self.data.moments[0]).div_(self.data.moments[1])
        return x

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The tasks of these numbers: distinct classes with random labels, disjoint support and query images."""
        data, random = self.data, TaskRandom(self.seed, split, numbers)
        shots, size = self.shots_in(split), self.shots_in(split) + self.queries_in(split)
        pool = data.splits[split]
        ways = self.ways_in(split)
        picked = random.choose(len(pool) * self._turns(split), ways)  # (T, N)
        classes, turns = pool[picked % len(pool)], picked // len(pool)
        if self.rotations == "tasks":
            turns = random.integers(4, ways)
        images = data.starts[classes][..., None] + random.choose(data.counts[classes], size, (ways,))  # (T, N, K+Q)
        if self.rotations != "none":
            images = images + turns[..., None] * (len(data.images) // 4)
        rows = images.flatten().to(data.images.device, non_blocking=True)
        x = data.images.index_select(0, rows).view(*images.shape, *data.images.shape[1:])  # (T, N, K+Q, ...)
        x = self.inputs(self.transform(split, numbers, x))
        labels = torch.arange(ways)[:, None].expand(len(numbers), -1, size)
        order = inner_order(random, ways * shots, *self.inner_batches(split))
        return Episode(
            x[:, :, :shots].flatten(1, 2),
            labels[:, :, :shots].flatten(1, 2),
            x[:, :, shots:].flatten(1, 2),
            labels[:, :, shots:].flatten(1, 2),
            order,
            numbers,
            picked % len(pool) + turns * len(pool),
        )


@dataclass(kw_only=True, eq=False)
class FileEpisodes(ImageEpisodes):
    """Few-shot classification of images that are read from a folder.

    Args:
        root: folder that holds the data set, in the layout that the data set's class describes.
        download: whether to download the data set where it is missing.
        cache_dir: folder for the decoded images; ``lightning_meta_cache`` in ``root`` when None. Where it cannot be
            written, the user's cache folder takes its place.
    """

    root: str = "data"
    download: bool = False
    cache_dir: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that ``root`` names."""
        return Path(self.root).expanduser()

    @property
    def cache_folder(self) -> Path:
        """The folder for the decoded images."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else self.folder / CACHE_FOLDER

    def prepare_data(self) -> None:
        """Download and decode in one process, before the other ranks read."""
        self.load()

    def __copy__(self) -> "FileEpisodes":
        """Another module on the same images."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens a memory map itself instead of receiving its content."""
        data = self._data
        mapped = data is not None and not data.images.is_cuda and data.images.nbytes > MAX_IN_MEMORY
        return self.__dict__ | ({"_data": None} if mapped else {})


def split_by_seed(classes: int, validation: int, test: int, seed: int) -> dict[Split, Tensor]:
    """Shuffle classes 0..classes-1 and hold some of them out; the rest is trained on.

    Args:
        classes: how many there are.
        validation: how many to validate on.
        test: how many to test on; together fewer than ``classes``.
        seed: of the shuffle.

    Returns:
        The classes of every split, sorted.
    """
    order = TaskRandom(seed, "array classes", torch.zeros(1, dtype=torch.int64)).order(classes)[0]
    parts = order.split([validation, test, classes - validation - test])
    names: tuple[Split, ...] = ("validation", "test", "train")
    return {split: part.sort().values for split, part in zip(names, parts, strict=True)}
