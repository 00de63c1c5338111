"""Tasks per second of the image sampler on one core, beside learn2learn's, in one run.

5-way 1-shot with one query, float32, on Omniglot where ``--root`` says where it is and on drawn characters otherwise.
Both sides hold the same images in memory. They take turns, and seconds are the processor's own, so that a busy machine
changes little.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import get_args

import learn2learn
import torch
from learn2learn.data import transforms
from torch.utils.data import TensorDataset

from lightning_meta.data.drawing.images import ImageEpisodes, Rotations
from lightning_meta.data.glyphs import GlyphEpisodes
from lightning_meta.data.omniglot import OmniglotEpisodes

WAYS, SHOTS, QUERIES, META_BATCH_SIZE = 5, 1, 1, 32
ROUNDS, SECONDS = 7, 0.3  # of every sampler, and of a round


def our_sampler(data: ImageEpisodes) -> Callable[[], object]:
    """Draws the next meta-batch."""
    batches = count()
    return lambda: data.draw("train", torch.arange(META_BATCH_SIZE) + META_BATCH_SIZE * next(batches))


def their_sampler(data: ImageEpisodes) -> Callable[[], object]:
    """Draws as many tasks one by one, which is how learn2learn hands them out."""
    classes, turns = data.data.splits["train"], 4 if data.rotations == "classes" else 1
    starts, counts = data.data.starts[classes], data.data.counts[classes]
    spans = zip(starts.tolist(), counts.tolist(), strict=True)
    images = torch.cat([torch.arange(start, start + number) for start, number in spans])
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    all_images = len(data.data.images) // (1 if data.rotations == "none" else 4)  # before turning
    pixels = torch.cat([data.data.images[images + turn * all_images] for turn in range(turns)])
    names = torch.cat([labels + turn * len(classes) for turn in range(turns)])
    dataset = learn2learn.data.MetaDataset(TensorDataset(pixels, names))
    steps = [
        transforms.FusedNWaysKShots(dataset, n=WAYS, k=SHOTS + QUERIES),
        transforms.LoadData(dataset),
        transforms.RemapLabels(dataset),
        transforms.ConsecutiveLabels(dataset),
    ]
    if data.rotations == "tasks":
        steps.append(learn2learn.vision.transforms.RandomClassRotation(dataset, [0.0, 90.0, 180.0, 270.0]))
    tasks = learn2learn.data.Taskset(dataset, task_transforms=steps)

    def draw() -> None:
        for _ in range(META_BATCH_SIZE):
            x, y = tasks.sample()
            learn2learn.data.partition_task(x.float().div_(255), y, shots=SHOTS)

    return draw


def tasks_per_second(draw: Callable[[], object]) -> float:
    """Rate over a round, per second of processor time."""
    start, batches = time.process_time(), 0
    while time.process_time() - start < SECONDS:
        draw()
        batches += 1
    return batches * META_BATCH_SIZE / (time.process_time() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Tasks per second of the image sampler, beside learn2learn's.")
    parser.add_argument("--root", help="folder that holds omniglot-py; without it, characters are drawn")
    root = parser.parse_args().root
    torch.set_num_threads(1)
    rates: dict[Rotations, tuple[list[float], list[float]]] = {}
    samplers: dict[Rotations, tuple[Callable[[], object], Callable[[], object]]] = {}
    for rotations in get_args(Rotations):
        data = (
            OmniglotEpisodes(root=root, split="nichol", rotations=rotations)
            if root
            else GlyphEpisodes(rotations=rotations, train_classes=1200, validation_classes=0, test_classes=0)
        )
        samplers[rotations] = our_sampler(data), their_sampler(data)
        rates[rotations] = [], []
        for draw in samplers[rotations]:
            draw()  # the first is never typical
    for _ in range(ROUNDS):
        for rotations, pair in samplers.items():
            for draw, measured in zip(pair, rates[rotations], strict=True):
                measured.append(tasks_per_second(draw))
    print(f"tasks/s, {WAYS}-way {SHOTS}-shot, {QUERIES} query, meta-batch {META_BATCH_SIZE}, one core, "
          f"{'Omniglot' if root else 'drawn characters'}: median (lowest to highest of {ROUNDS})")  # fmt: skip
    print(f"{'rotations':<10}{'lightning_meta':>28}{'learn2learn':>26}{'ratio':>8}")
    for rotations, pair_of_rates in rates.items():
        ours, theirs = (statistics.median(measured) for measured in pair_of_rates)
        cells = [f"{statistics.median(m):,.0f} ({min(m):,.0f} to {max(m):,.0f})" for m in pair_of_rates]
        print(f"{rotations:<10}{cells[0]:>28}{cells[1]:>26}{ours / theirs:>8.1f}")


if __name__ == "__main__":
    main()
