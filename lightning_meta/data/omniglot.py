"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015,
https://github.com/brendenlake/omniglot

The class splits are lists that come with the package (`splits/omniglot_*.json`), independent of the seed:

- ``lake``: 964 / none / 659 characters, the data set's own background and evaluation alphabets.
- ``vinyals``: 1,028 / 172 / 423, the published lists (Vinyals et al., arXiv 1606.04080).
- ``finn``: 1,100 / 100 / 423. Finn et al. (arXiv 1703.03400) published the sizes only; this list is
  ``random.Random(0).shuffle`` of all names in sorted order, cut at 1,100 and 1,200, each part sorted.
- ``nichol``: 1,200 / none / 423 (Nichol et al., arXiv 1803.02999), the same shuffle cut at 1,200, so that it shares its
  test classes with ``finn``.
"""

import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import torch
from torchvision.datasets import Omniglot

from lightning_meta.data.drawing.images import ClassImages, FileEpisodes
from lightning_meta.data.files.downloads import download_archive
from lightning_meta.data.files.omniglot_cache import SIDE, Rendering, cached_drawings
from lightning_meta.data.files.pictures import Preprocessing, Resample
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

OmniglotSplit = Literal["lake", "vinyals", "finn", "nichol"]

FOLDER = "omniglot-py"  # as torchvision names it
DRAWINGS = 20  # of each character


@dataclass(kw_only=True, eq=False)
class OmniglotEpisodes(FileEpisodes):
    """Few-shot classification of Omniglot's characters, 28 x 28 pixels, one channel, in 0..1.

    The defaults draw grey with ink = 1, as Finn et al. describe. ``resample: nearest`` and ``ink: 0`` give the binary
    images of Nichol et al.

    The files are in ``root/omniglot-py/images_background`` and ``root/omniglot-py/images_evaluation``.

    Args:
        split: author of the split of the classes; ``lake`` and ``nichol`` have none for validation.
        resample: PIL's filter that shrinks the drawings from 105 x 105 pixels.
        threshold: a pixel with more ink than this, in 0..1, is all ink and any other has none; None keeps grey.
        ink: value of ink; the background has the other.

    Raises:
        MetaLearningError: ``threshold`` is not in 0..1.
    """

    split: OmniglotSplit = "vinyals"
    resample: Resample = "lanczos"
    threshold: float | None = None
    ink: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise MetaLearningError(
                f"data.threshold is {self.threshold}, expected ink from 0 to below 1, or null for grey"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """Dark drawings on light paper become small images, as `rendering` says."""
        return Preprocessing(
            side=SIDE, channels=1, resample=self.resample, threshold=self.threshold, background=1.0,
            invert=self.ink == 1,
        )  # fmt: skip

    @property
    def rendering(self) -> Rendering:
        """How the drawings become small images, which also names their cache."""
        return Rendering(self.resample, self.threshold, self.ink)

    def has_validation(self) -> bool:
        """Whether the split has validation classes and ``validation_tasks`` is above 0."""
        return self.split not in ("lake", "nichol") and super().has_validation()

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages): the splits of the characters that have enough."""
        needed = self.ways_in(split) / self._turns(split)
        wider = [name for name in get_args(OmniglotSplit) if len(read_splits(name)[split]) >= needed]
        return f"set data.split to {' or '.join(wider)}" if wider else super().more_classes(split)

    def load(self) -> ClassImages:
        """All drawings, uint8 (32460, 1, 28, 28), by character in the order of names such as Latin/character01.

        Raises:
            MetaLearningError: the data set is missing or incomplete, cannot be downloaded, or is unreadable.
        """
        splits = read_splits(self.split)
        characters = sorted(name for names in splits.values() for name in names)
        source = self.folder / FOLDER
        try:
            files = _drawings(source, characters)
        except MetaLearningError:
            if not self.download:
                raise
            _fetch(source, characters)
            files = _drawings(source, characters)
        place = {name: index for index, name in enumerate(characters)}
        return ClassImages(
            cached_drawings(source, files, self.rendering, self.cache_folder),
            torch.arange(len(characters)) * DRAWINGS,
            torch.full((len(characters),), DRAWINGS),
            {
                split: torch.tensor([place[name] for name in names], dtype=torch.int64)
                for split, names in splits.items()
            },
            names=characters,
        )


def read_splits(name: OmniglotSplit) -> dict[Split, list[str]]:
    """Characters such as ``images_background/Latin/character01`` in each split; together they are all 1,623."""
    text = resources.files("lightning_meta.data").joinpath("splits", f"omniglot_{name}.json").read_text("utf-8")
    splits: dict[Split, list[str]] = json.loads(text)
    return splits


def _drawings(source: Path, characters: list[str]) -> list[str]:
    """Paths, relative to ``source``, of the drawings of these characters, in their order.

    Raises:
        MetaLearningError: some are missing.
    """
    found = {character: _images(source / character) for character in characters}
    for part in sorted({character.partition("/")[0] for character in characters}):
        counts = {character: len(names) for character, names in found.items() if character.startswith(f"{part}/")}
        wrong = [character for character, count in counts.items() if count != DRAWINGS]
        if wrong:
            complete = len(counts) - len(wrong)
            there = (source / part).is_dir()
            raise MetaLearningError(
                f"{source / part} "
                + ("holds" if there else "does not exist: found")
                + f" {complete} complete characters and {sum(counts.values())} images, expected {len(counts)} "
                f"characters of {DRAWINGS} images each; the first that differs is {wrong[0]} with {counts[wrong[0]]}. "
                f"Say where Omniglot is with --data.root DIR (it holds {source.name}/{part}), or "
                + (f"delete {source / part} and " if there else "")
                + "download it with --data.download true"
            )
    return [f"{character}/{name}" for character, names in found.items() for name in names]


def _fetch(source: Path, characters: list[str]) -> None:
    """Download the parts of the data set that are missing.

    Raises:
        MetaLearningError: that failed, or a part is there but incomplete.
    """
    for part, md5 in Omniglot.zips_md5.items():
        try:
            _drawings(source, [character for character in characters if character.startswith(f"{part}/")])
        except MetaLearningError:
            download_archive("Omniglot", f"{Omniglot.download_url_prefix}/{part}.zip", source, [part], md5)


def _images(folder: Path) -> list[str]:
    """Names of the images in a folder, sorted; none where the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(".png") and entry.is_file())
    except OSError:
        return []
