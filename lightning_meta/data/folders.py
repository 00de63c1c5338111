"""Few-shot classification of your own pictures, in a folder for each class."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torchvision.transforms import v2

from lightning_meta.data.drawing.data_module import check_at_least, check_seeds
from lightning_meta.data.drawing.images import ClassImages, FileEpisodes, split_by_seed
from lightning_meta.data.drawing.photographs import SPLITS
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.data.files.class_folders import ClassFolders, list_pictures
from lightning_meta.data.files.class_splits import few, named_splits, splits_setting
from lightning_meta.data.files.folder_cache import CachedPictures, cached_pictures
from lightning_meta.data.files.pictures import Preprocessing, Resample
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError


@dataclass(kw_only=True, eq=False)
class FolderEpisodes(FileEpisodes):
    """Few-shot tasks from a folder of pictures for each class.

    The pictures are ``root/{train,val,test}/CLASS/*.png`` (``validation`` is understood, too), each class in one split,
    or ``root/CLASS/*.png``, whose classes ``split_file`` or a seeded shuffle splits. They may have any size, mode and
    format that Pillow reads, and are decoded once, on all cores, into a cache. Where nearly all training pictures have
    a light border, or nearly all a dark one, they count as drawings on that background and are padded to a square;
    others are cropped to one.

    Args:
        image_size: height and width of the images, in pixels.
        channels: 1 for grey, 3 for colours.
        resample: PIL's filter that shrinks the pictures.
        normalise: whether each channel has its mean over the training classes' images subtracted and is divided by
            its standard deviation over them; otherwise images are in 0..1.
        support_transform: augments every support image of training tasks, uint8 (channels, height, width), to an image
            of that shape, uint8 or floats in 0..1; a transform of ``torchvision.transforms.v2``. What is random must
            come from PyTorch's generator, which is seeded for every task. Images then stay in main memory.
        query_transform: likewise for every query image.
        validation_classes: classes to validate on, where neither the folders nor a file say which; 0 for none.
        test_classes: classes to test on, likewise.
        split_seed: seed of that split of the classes, which is the same for every ``seed``.
        split_file: JSON with the class names of each split, ``{"train": [...], "val": [...], "test": [...]}``, the same
            in YAML, or text with lines such as ``train CLASS``. Classes that it does not name are left out. The name of
            a split instead of a list, as in ``"test": "train"``, gives a split the classes of that one.
        splits: the same without a file, ``{train: [...], val: [...], test: [...]}``.
        strict: whether a picture that cannot be read is an error; otherwise it is named and left out.

    Raises:
        MetaLearningError: a number is too small.
    """

    image_size: int = 84
    channels: Literal[1, 3] = 3
    resample: Resample = "lanczos"
    normalise: bool = False
    support_transform: v2.Transform | None = None
    query_transform: v2.Transform | None = None
    validation_classes: int = 0
    test_classes: int = 0
    split_seed: int = 0
    split_file: str | None = None
    splits: dict[str, list[str] | str | Any] | None = None
    strict: bool = False
    download: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, image_size=self.image_size)
        check_at_least(0, validation_classes=self.validation_classes, test_classes=self.test_classes)
        check_seeds(split_seed=self.split_seed)
        self._splits_setting = splits_setting(self.split_file, self.splits)
        if self.support_transform is not None or self.query_transform is not None:
            self.cache_device = "cpu"  # a GPU's random numbers are others

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an image, with what was found from the training pictures."""
        moments = self.data.moments.flatten(1).tolist() if self.data.moments is not None else (None, None)
        mean, deviation = (None if values is None else tuple(values) for values in moments)
        return Preprocessing(
            side=self.image_size, channels=self.channels, resample=self.resample, background=self.data.background,
            mean=mean, deviation=deviation,
        )  # fmt: skip

    @cached_property
    def folders(self) -> ClassFolders:
        """The pictures of every class, and the classes of every split where the tree has splits."""
        return list_pictures(self.folder)

    @cached_property
    def class_splits(self) -> dict[Split, list[str]]:
        """Names of the classes of every split, sorted, also of those that have too few pictures for a task.

        Raises:
            MetaLearningError: there are no pictures, or the settings do not split them.
        """
        files, splits = self.folders
        classes = [name for name, pictures in files.items() if pictures]
        held_out = self.validation_classes, self.test_classes
        given = [name for name in ("validation_classes", "test_classes", "split_file", "splits") if getattr(self, name)]
        if (splits is not None and given) or (self._splits_setting is not None and len(given) > 1):
            split_by = f"the folders of {self.folder} split" if splits is not None else f"{self._splits_setting} splits"
            value = "given" if given[0] == "splits" else getattr(self, given[0])
            raise MetaLearningError(f"data.{given[0]} is {value}, but {split_by} the classes already: leave it out")
        if splits is not None:
            return splits
        if self._splits_setting is not None:
            return named_splits(self.split_file, self.splits, classes, f"{self.folder} has pictures of")
        if sum(held_out) >= len(classes):
            raise MetaLearningError(
                f"data.validation_classes is {held_out[0]} and data.test_classes is {held_out[1]}, but {self.folder} "
                f"holds pictures of {len(classes)} classes, and some must be left to train on: lower them"
            )
        by_seed = split_by_seed(len(classes), *held_out, self.split_seed)
        return {split: [classes[place] for place in by_seed[split]] for split in SPLITS}

    def has_validation(self) -> bool:
        """Whether there are classes to validate on and ``validation_tasks`` is above 0."""
        return super().has_validation() and bool(self.class_splits["validation"])

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages)."""
        remedies = []
        if self.folders.splits is not None:
            remedies.append(f"add folders to {self.folder}/{'val' if split == 'validation' else split}")
        elif self._splits_setting is not None:
            remedies.append(f"name more of them in {self._splits_setting}")
        elif split != "train":
            remedies.append(f"raise data.{split}_classes")
        elif self.validation_classes + self.test_classes > 0:
            remedies.append("lower data.validation_classes or data.test_classes")
        else:
            remedies.append(f"add folders to {self.folder}")
        return ", or ".join(remedies)

    def prepare_data(self) -> None:
        """Decode in one process, before the other ranks read, and keep what was read."""
        self._data = self.data

    def load(self) -> ClassImages:
        """All pictures that can be read, uint8 (pictures, channels, image_size, image_size), classes sorted by name.

        Raises:
            MetaLearningError: there are no pictures, the settings do not split them, or, with ``strict``, one of them
                cannot be read.
        """
        splits = self.class_splits
        empty = (name for name, pictures in self.folders.files.items() if not pictures)  # to be named as left out
        classes = sorted({name for names in splits.values() for name in names}.union(empty))
        files = {name: self.folders.files[name] for name in classes}
        plain = Preprocessing(side=self.image_size, channels=self.channels, resample=self.resample)
        pictures = cached_pictures(self.folder, files, set(splits["train"]), plain, self.cache_folder)
        self._report_unreadable(pictures)
        if self.normalise and pictures.moments is None:
            raise MetaLearningError(
                f"data.normalise is true, but {self.folder} holds no training pictures, whose mean it takes: set it to "
                "false, or add them"
            )
        self._report_unnamed(set(classes))
        places = {name: place for place, name in enumerate(classes)}
        sizes = torch.tensor(pictures.counts)
        return ClassImages(
            pictures.images,
            sizes.cumsum(0) - sizes,
            sizes,
            {
                split: torch.tensor([places[name] for name in names], dtype=torch.int64)
                for split, names in splits.items()
            },
            torch.tensor(pictures.moments, dtype=torch.float32)[..., None, None] if self.normalise else None,
            classes,
            pictures.background,
        )

    def _report_unreadable(self, pictures: CachedPictures) -> None:
        """Name pictures that cannot be read, or refuse them: with ``strict``, and where there are no others."""
        if not pictures.unreadable:
            return
        number, total = len(pictures.unreadable), len(pictures.unreadable) + sum(pictures.counts)
        found = f"{number:,} of {total:,} pictures in {self.folder} cannot be read"
        reason = f"{few(list(pictures.unreadable))}. The first: {next(iter(pictures.unreadable.values()))}"
        if self.strict or number == total:
            remedy = "replace them" + ("" if number == total else ", or leave them out with --data.strict false")
            raise MetaLearningError(f"{found}: {remedy}: {reason}")
        rank_zero_warn(f"{found} and are left out: {reason}")

    def _report_unnamed(self, named: set[str]) -> None:
        """Name classes that the split file leaves out."""
        unnamed = [name for name, files in self.folders.files.items() if name not in named and files]
        if unnamed:
            rank_zero_warn(f"{self._splits_setting} does not name {few(unnamed)}, which {self.folder} has: left out")

    def transform(self, split: Split, numbers: Tensor, images: Tensor) -> Tensor:
        """Augmented images of training tasks, the images of other tasks as they are."""
        transforms = {"support_transform": self.support_transform, "query_transform": self.query_transform}
        if split != "train" or all(transform is None for transform in transforms.values()):
            return images
        shots = self.shots_in(split)
        seeds = TaskRandom(self.seed, "train transforms", numbers).bits(2)  # (T, 2)
        parts = [images[:, :, :shots], images[:, :, shots:]]
        for place, (name, transform) in enumerate(transforms.items()):
            if transform is not None and parts[place].numel():
                parts[place] = _transformed(name, transform, parts[place], seeds[:, place])
        return torch.cat([part.float() / 255 if part.dtype == torch.uint8 else part for part in parts], dim=2)


def _transformed(name: str, transform: v2.Transform, images: Tensor, seeds: Tensor) -> Tensor:
    """Every image of every task, shape (tasks, ways, rows, ...), transformed; the random numbers are the task's."""
    transformed = []
    with torch.random.fork_rng(devices=[]):
        for task, seed in zip(images.flatten(1, 2), seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, too
            try:
                transformed += [transform(image) for image in task]
            except Exception as error:
                raise MetaLearningError(
                    f"data.{name} cannot transform uint8 images of shape {tuple(images.shape[3:])} ({error}): "
                    "change its settings or, if it needs floats, put ToDtype(torch.float32, scale=True) before it"
                ) from error
    expected, found = images.shape[3:], {(row.dtype, row.shape) for row in transformed}
    if len(found) > 1 or not all(shape == expected and _is_image(dtype) for dtype, shape in found):
        said = " and ".join(sorted(f"{dtype} {tuple(shape)}" for dtype, shape in found))
        raise MetaLearningError(
            f"data.{name} gives {said}, expected uint8 or floats of shape {tuple(expected)}: end with a resize or crop "
            f"to {expected[-1]} pixels"
        )
    return torch.stack(transformed).view(images.shape)


def _is_image(dtype: torch.dtype) -> bool:
    return dtype == torch.uint8 or dtype.is_floating_point
