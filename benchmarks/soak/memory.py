"""Main memory over many meta-steps with validations, and over many data modules."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from cases import CASES
from PIL import Image
from processes import Run, forked
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_meta.data import (
    ArrayEpisodes,
    EpisodeDataModule,
    FolderEpisodes,
    GlyphEpisodes,
    QuadraticEpisodes,
    SinusoidEpisodes,
)
from lightning_meta.process import keep_freed_memory

LONGEST = 7200.0  # seconds of the long run
LEAK = 4_000_000  # bytes by which the second half may exceed the first: 400 for each of 10,000 meta-steps
FILES = 8  # likewise of open files, a few of which wait for Python to collect a data loader: far below one for a worker
# Variables of the process that is measured: the file of the samples, and whether cycles are collected before each.
_SAMPLES, _COLLECT = "SOAK_SAMPLES", "SOAK_COLLECT"


class Sample(NamedTuple):
    """What a process holds."""

    memory: int  # bytes that are resident
    files: int  # that are open
    processes: int  # that it has started, and that have not ended


class Watch(Callback):
    """Writes down what the process holds after every validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append a line to the file."""
        record(Path(os.environ[_SAMPLES]))


def record(path: Path) -> None:
    """Append what this process holds to a file; cycles of objects are collected before where `collect` asked for it."""
    if _COLLECT in os.environ:
        gc.collect()
    process = psutil.Process()
    sample = Sample(process.memory_info().rss, process.num_fds(), len(process.children()))
    with path.open("a") as file:
        file.write(" ".join(map(str, sample)) + "\n")


def of_training(steps: int, samples: int, folder: Path) -> list[Sample]:
    """Train by the command line, with as many validations as samples are wanted."""
    case, found = CASES["MAML, captured graph"], folder / "samples"
    folder.mkdir(parents=True)
    arguments = [*case.arguments(str(folder)), "--trainer.callbacks+=memory.Watch", f"--trainer.max_steps={steps}"]
    arguments.append(f"--trainer.val_check_interval={steps // samples}")
    os.environ[_SAMPLES] = str(found)
    arguments.append("--trainer.log_every_n_steps=50")
    Run(case, arguments, folder / "output.log").wait(LONGEST)
    return read(found)


def of_modules(count: int, samples: int, folder: Path) -> list[Sample]:
    """Open and close so many data modules of five kinds in one process, and take samples meanwhile."""
    found, output = folder / "samples", folder / "output.log"
    folder.mkdir(parents=True)
    process = forked(lambda: open_and_close(count, max(count // samples, 1), folder, found), output, {}, 0)
    if os.waitpid(process, 0)[1]:
        raise RuntimeError(output.read_text()[-2000:])
    return read(found)


def open_and_close(count: int, every: int, folder: Path, samples: Path) -> int:
    """Draw tasks of every split from so many data modules, one after another; one of 21 has a data worker."""
    keep_freed_memory()
    makers = modules(folder)
    for number in range(count):
        module = next(makers)
        module.num_workers = int(number % 21 == 0)
        module.setup("fit")
        module.draw("train", torch.arange(2))
        for loader in (module.val_dataloader(), module.test_dataloader()):
            list(loader)
        module.teardown("fit")
        del module, loader
        if number % every == every - 1:
            record(samples)
    return 0


def modules(folder: Path) -> Iterator[EpisodeDataModule]:
    """Data modules of five kinds in turn: drawn, computed, from arrays and from a folder of pictures."""
    random = np.random.default_rng(0)
    for name in range(9):
        (folder / "pictures" / str(name)).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / str(name) / f"{number}.png")
    np.save(folder / "x.npy", random.normal(size=(60, 4)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(60) % 10)
    tasks: dict[str, Any] = {"meta_batch_size": 2, "validation_tasks": 2, "test_tasks": 2}
    split: dict[str, Any] = {"ways": 2, "validation_classes": 2, "test_classes": 2}
    pictures, cache = str(folder / "pictures"), str(folder / "cache")
    while True:
        yield GlyphEpisodes(**tasks, **split, train_classes=4, drawings=4)
        yield SinusoidEpisodes(**tasks)
        yield QuadraticEpisodes(**tasks)
        yield ArrayEpisodes(x=folder / "x.npy", y=folder / "y.npy", **tasks, **split)
        yield FolderEpisodes(root=pictures, cache_dir=cache, image_size=8, **tasks, **split)


def read(samples: Path) -> list[Sample]:
    """The lines of the file."""
    return [Sample(*map(int, line.split())) for line in samples.read_text().splitlines()]


def collect() -> None:
    """Have cycles collected before every sample.

    Python looks for old ones rarely, and until then keeps the figures that were drawn: a short run cannot show that
    memory stays what it is.
    """
    os.environ[_COLLECT] = "1"


def growth(samples: list[Sample]) -> Sample:
    """By how much the most that the second half of the samples held exceeds the most of the first half."""
    half = len(samples) // 2
    first, second = (Sample(*map(max, zip(*part, strict=True))) for part in (samples[:half], samples[half:]))
    return Sample(*(later - earlier for earlier, later in zip(first, second, strict=True)))
