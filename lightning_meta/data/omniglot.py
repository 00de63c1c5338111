"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015,
https://github.com/brendenlake/omniglot

The class splits are lists that come with the package (`splits/omniglot_*.json`), whatever the seed:

- ``lake``: 964 / none / 659 characters, the data set's own background and evaluation alphabets.
- ``vinyals``: 1,028 / 172 / 423, the published lists (Vinyals et al., arXiv 1606.04080).
- ``finn``: 1,100 / 100 / 423. Finn et al. (arXiv 1703.03400) published the sizes only; this list is
  ``random.Random(0).shuffle`` of all names in sorted order, cut at 1,100 and 1,200, each part sorted.
- ``nichol``: 1,200 / none / 423 (Nichol et al., arXiv 1803.02999), the same shuffle cut at 1,200, so that it shares its
  test classes with ``finn``.
"""

import json
import os
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import torch

from lightning_meta.data.drawing.images import CacheDevice, ClassImages, ImageEpisodes, Rotations
from lightning_meta.data.files.omniglot_cache import Rendering, Resample, cached_drawings
from lightning_meta.data.learn2learn import download_omniglot
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

OmniglotSplit = Literal["lake", "vinyals", "finn", "nichol"]

DRAWINGS = 20  # of every character


class OmniglotEpisodes(ImageEpisodes):
    """Few-shot classification of Omniglot's characters, 28 x 28 pixels, one channel, in 0..1.

    The defaults draw grey with ink = 1, as Finn et al. describe. ``resample: nearest`` and ``ink: 0`` give the binary
    images of Nichol et al.

    Args:
        root: folder that holds ``omniglot-py``.
        ways: classes in a task.
        shots: support drawings of a class.
        queries: query drawings of a class.
        train_shots: support drawings of a class in training; ``shots`` when None.
        train_queries: query drawings of a class in training; ``queries`` when None.
        split: whose split of the classes; ``lake`` and ``nichol`` have none for validation.
        rotations: ``none``; ``classes``: every class turned by 90, 180 and 270 degrees is a further class in training
            (Nichol et al.); ``tasks``: every class of a task is turned by a random multiple of 90 degrees (Finn
            et al.).
        resample: PIL's filter that shrinks the drawings from 105 x 105 pixels.
        threshold: a pixel with more ink than this, in 0..1, is all ink and any other has none; None keeps grey.
        ink: value of ink; the background has the other.
        download: fetch the data set with learn2learn where it is not complete.
        meta_batch_size: tasks in a meta-step, over all ranks.
        validation_tasks: tasks in one validation.
        test_tasks: tasks in a test.
        seed: names the stream of tasks; the class splits do not depend on it.
        num_workers: processes that draw ahead; 0 draws in the main process.
        cache_device: as in `ImageEpisodes`.
        cache_dir: folder for the decoded images; ``lightning_meta_cache`` in ``root`` when None. The user's cache
            folder takes its place where it cannot be written.

    Raises:
        MetaLearningError: ``threshold`` is not in 0..1.
    """

    def __init__(
        self,
        root: str = "data",
        ways: int = 5,
        shots: int = 1,
        queries: int = 1,
        train_shots: int | None = None,
        train_queries: int | None = None,
        split: OmniglotSplit = "vinyals",
        rotations: Rotations = "none",
        resample: Resample = "lanczos",
        threshold: float | None = None,
        ink: Literal[0, 1] = 1,
        download: bool = False,
        meta_batch_size: int = 32,
        validation_tasks: int = 100,
        test_tasks: int = 600,
        seed: int = 0,
        num_workers: int = 0,
        cache_device: CacheDevice = "auto",
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(
            ways, shots, queries, train_shots, train_queries, rotations, meta_batch_size, validation_tasks, test_tasks,
            seed, num_workers, cache_device,
        )  # fmt: skip
        if threshold is not None and not 0 <= threshold < 1:
            raise MetaLearningError(f"data.threshold is {threshold}, expected ink from 0 to below 1, or null for grey")
        self.root = Path(root).expanduser()
        self.split = split
        self.rendering = Rendering(resample, threshold, ink)
        self.download = download
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else self.root / "lightning_meta_cache"

    def has_validation(self) -> bool:
        """Whether the split has validation classes and tasks are asked for."""
        return self.split not in ("lake", "nichol") and super().has_validation()

    def more_classes(self, split: Split) -> str:
        """Which split of the characters to set for as many classes as a task has, where one has them."""
        turns = self._turns(split)
        wider = [name for name in get_args(OmniglotSplit) if len(read_splits(name)[split]) * turns >= self.ways]
        return f"set data.split to {' or '.join(wider)}" if wider else super().more_classes(split)

    def prepare_data(self) -> None:
        """Download and decode in one process, before the ranks read the cache."""
        self.load()

    def load(self) -> ClassImages:
        """All drawings, uint8 (32460, 1, 28, 28), by character in the order of names such as Latin/character01.

        Raises:
            MetaLearningError: the data set is missing or not complete, cannot be fetched, or holds an unreadable image.
        """
        splits = read_splits(self.split)
        characters = sorted(name for names in splits.values() for name in names)
        source = self.root / "omniglot-py"
        try:
            files = _drawings(source, characters)
        except MetaLearningError:
            if not self.download:
                raise
            download_omniglot(self.root)
            files = _drawings(source, characters)
        place = {name: index for index, name in enumerate(characters)}
        return ClassImages(
            cached_drawings(source, files, self.rendering, self.cache_dir),
            torch.arange(len(characters)) * DRAWINGS,
            torch.full((len(characters),), DRAWINGS),
            {
                split: torch.tensor([place[name] for name in names], dtype=torch.int64)
                for split, names in splits.items()
            },
        )


def read_splits(name: OmniglotSplit) -> dict[Split, list[str]]:
    """Characters such as ``images_background/Latin/character01`` of every split; the three are all 1,623."""
    text = resources.files("lightning_meta.data").joinpath("splits", f"omniglot_{name}.json").read_text("utf-8")
    splits: dict[Split, list[str]] = json.loads(text)
    return splits


def _drawings(source: Path, characters: list[str]) -> list[str]:
    """Paths in ``source`` of the drawings of these characters, in their order.

    Raises:
        MetaLearningError: some are missing.
    """
    found = {character: _images(source / character) for character in characters}
    for part in sorted({character.partition("/")[0] for character in characters}):
        counts = {character: len(names) for character, names in found.items() if character.startswith(f"{part}/")}
        wrong = [character for character, count in counts.items() if count != DRAWINGS]
        if wrong:
            whole = len(counts) - len(wrong)
            raise MetaLearningError(
                f"{source / part} "
                + ("holds" if (source / part).is_dir() else "does not exist: found")
                + f" {whole} whole characters and {sum(counts.values())} images, expected {len(counts)} characters of "
                f"{DRAWINGS} images each; the first that is not whole is {wrong[0]} with {counts[wrong[0]]}. "
                f"Say where Omniglot is with --data.root DIR (it holds {source.name}/{part}), or fetch it with "
                "--data.download true"
            )
    return [f"{character}/{name}" for character, names in found.items() for name in names]


def _images(folder: Path) -> list[str]:
    """Names of the images in a folder, sorted; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(".png") and entry.is_file())
    except OSError:
        return []
