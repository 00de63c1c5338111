"""A folder of 60,000 pictures: seconds to cache it, tasks per second, and the accuracy of the data set that it holds.

    python benchmarks/studies/folder_episodes.py --data ROOT [--seed 0] [--meta-steps 100] [--test-tasks 100]

Writes CIFAR-FS (`ROOT/cifarfs`) as PNG files to `train`, `val` and `test` in a temporary folder and reads them with
`FolderEpisodes`. Prints the seconds of the first and of the second start, and tasks per second: 5-way 1-shot with one
query in meta-batches of 32, medians of alternating turns in the processor's own seconds. Beside it are
`CIFARFSEpisodes` at the same size, `OmniglotEpisodes` (`ROOT/omniglot-py`) at its own, and, of 84 x 84 pixels, a memory
map and the same images in memory. Then trains and tests MAML (`cifarfs/maml_5w1s`, shortened) through both modules of
CIFAR-FS with one seed and compares accuracies and weights; where they differ, it exits with 1. Writes
`folder_episodes.csv`.
"""

import argparse
import copy
import csv
import json
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_meta.cli import main as run
from lightning_meta.data import CIFARFSEpisodes, FolderEpisodes, OmniglotEpisodes
from lightning_meta.data.drawing.images import ImageEpisodes

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
META_BATCH_SIZE = 32
ROUNDS, SECONDS = 7, 0.5  # of every sampler, and of a round


def write_pictures(data: CIFARFSEpisodes, root: Path) -> int:
    """Write every image to ``root/SPLIT/CLASS/NUMBER.png`` and return how many there are."""
    names = {split: sorted({file.split("/")[-2] for file in files}) for split, files in data.sources().items()}
    images = data.data
    for split, classes in names.items():
        for name, place in zip(classes, images.splits[split].tolist(), strict=True):
            folder = root / FOLDERS[split] / name
            folder.mkdir(parents=True)
            start, number = int(images.starts[place]), int(images.counts[place])
            for row in range(number):
                Image.fromarray(images.images[start + row].permute(1, 2, 0).numpy()).save(folder / f"{row:03}.png")
    return len(images.images)


def seconds_to_load(data: ImageEpisodes) -> float:
    """Until the images are there."""
    start = time.perf_counter()
    data.data  # noqa: B018
    return time.perf_counter() - start


def tasks_per_second(samplers: dict[str, ImageEpisodes]) -> dict[str, float]:
    """Median rates of training tasks per second of processor time, in alternating turns."""
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    batches = count()
    for _ in range(ROUNDS):
        for name, data in samplers.items():
            start, drawn = time.process_time(), 0
            while time.process_time() - start < SECONDS:
                data.draw("train", torch.arange(META_BATCH_SIZE) + META_BATCH_SIZE * next(batches))
                drawn += META_BATCH_SIZE
            rates[name].append(drawn / (time.process_time() - start))
    return {name: statistics.median(measured) for name, measured in rates.items()}


def train(data: list[str], seed: int, meta_steps: int, test_tasks: int, folder: Path) -> tuple[dict, dict]:
    """Train and test MAML on these data by the command line; the metrics of the test and the weights."""
    arguments = ["fit", "--config=cifarfs/maml_5w1s", *data, f"--trainer.max_steps={meta_steps}"]
    arguments += [f"--data.test_tasks={test_tasks}", f"--seed_everything={seed}", "--trainer.accelerator=cpu"]
    arguments += ["--data.queries=5", f"--trainer.default_root_dir={folder}", "--trainer.limit_val_batches=0"]
    arguments += ["--checkpoint.monitor=null", "--trainer.enable_progress_bar=false", "--model.compile=false"]
    arguments += ["--model.task_chunk=4"]  # auto measures time, and sums in another order are others
    if run(arguments):
        sys.exit(f"{data[0]}: training failed")
    (results,), (checkpoint,) = folder.rglob("results.json"), folder.rglob("last.ckpt")
    return json.loads(results.read_text())[0]["metrics"], torch.load(checkpoint, weights_only=True)["state_dict"]


def main() -> int:
    """Measure, print and write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds cifarfs and omniglot-py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--meta-steps", type=int, default=100)
    parser.add_argument("--test-tasks", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    given = parser.parse_args()
    rows: list[tuple[str, ...]] = []

    def note(*row: str) -> None:
        rows.append(row)
        print("| " + " | ".join(row) + " |", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "pictures")
        cifar = CIFARFSEpisodes(root=given.data)
        pictures = write_pictures(cifar, root)
        folders = FolderEpisodes(root=str(root), image_size=32)
        small = FolderEpisodes(root=str(root), image_size=28, channels=1)
        crop = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
        augmented = FolderEpisodes(root=str(root), image_size=32, support_transform=crop, query_transform=crop)
        note("first start", f"seconds, {pictures:,} pictures", f"{seconds_to_load(folders):.1f}")
        again = FolderEpisodes(root=str(root), image_size=32)
        note("second start", "seconds", f"{seconds_to_load(again):.1f}")
        mapped = FolderEpisodes(root=str(root), image_size=84)
        in_memory = copy.copy(mapped)
        in_memory._data = mapped.data._replace(images=mapped.data.images.clone())
        samplers: dict[str, ImageEpisodes] = {
            "FolderEpisodes, 32 x 32 x 3": folders, "CIFARFSEpisodes, 32 x 32 x 3": cifar,
            "FolderEpisodes, 28 x 28 x 1": small, "OmniglotEpisodes, 28 x 28 x 1": OmniglotEpisodes(root=given.data),
            "FolderEpisodes, 32 x 32 x 3, crops and flips": augmented,
            "FolderEpisodes, 84 x 84 x 3, memory map": mapped, "the same in memory": in_memory,
        }  # fmt: skip
        for data in samplers.values():
            seconds_to_load(data)
        for name, rate in tasks_per_second(samplers).items():
            note(name, "tasks per second", f"{rate:,.0f}")

        sources = {
            "CIFARFSEpisodes": [f"--data.root={given.data}"],
            "FolderEpisodes": ["--data=FolderEpisodes", f"--data.root={root}", "--data.image_size=32"],
        }
        tested = {
            name: train(data, given.seed, given.meta_steps, given.test_tasks, Path(temporary, name))
            for name, data in sources.items()
        }
        for name, (metrics, _) in tested.items():
            for protocol, key in (("transductive", "query"), ("non-transductive", "query_nontransductive")):
                mean, half = (metrics[f"{key}_accuracy"][part][-1] for part in ("mean", "half_width"))
                note(f"MAML, {name}", f"% {protocol}", f"{100 * mean:.2f} ± {100 * half:.2f}")
        (one, weights), (other, other_weights) = tested.values()
        same = one == other and all(torch.equal(value, other_weights[name]) for name, value in weights.items())
        note("accuracies and weights", "of both runs", "equal" if same else "differ")
    with (given.output / "folder_episodes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("what", "unit", "value"), *rows])
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
