"""How the meta-gradient of MAML scales: tasks a second and memory against everything that makes a task or a run larger.

    python benchmarks/speed/scaling.py

One quantity is varied at a time, from 5-way 1-shot with 32 tasks, one inner step, 64 filters and 28 x 28 pixels; images
are noise, on which the time does not depend. One thread a rank; medians of five turns. The ranks share the 32 tasks and
average their gradients by gloo; two are measured, and more are a model: the measured time of the tasks of one rank, and
for every doubling the time that averaging takes between two. Writes results/scaling.csv and results/scaling.png, which
``--draw`` draws from the former.
"""

import csv
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from instruments import peak_memory
from matplotlib.figure import Figure
from torch import distributed

from lightning_meta import MAML, Conv4, InnerLoop
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD
from lightning_meta.mapping import Compiled, MetaGradient, chunk_gradient, meta_gradient
from lightning_meta.process import keep_freed_memory

RESULTS = Path(__file__).parents[1] / "results"
CHUNK, TURNS, SECONDS = 16, 5, 0.3
PICTURE = RESULTS / "scaling.png"
COLOUR = "#0072B2"


class Setting(NamedTuple):
    """What is varied."""

    tasks: int = 32
    ways: int = 5
    inner_steps: int = 1
    filters: int = 64
    pixels: int = 28


VARIED: dict[str, list[int]] = {
    "tasks": [1, 4, 16, 64, 256, 1024],
    "ways": [2, 5, 10, 20],
    "inner_steps": [1, 2, 5, 10],
    "filters": [16, 32, 64, 128],
    "pixels": [14, 28, 56, 84],
}
RANKS = [1, 2, 4, 8, 16, 32]
MEASURED_RANKS = 2


def meta_step(setting: Setting) -> Callable[[], MetaGradient]:
    """One meta-gradient, by the graph."""
    torch.manual_seed(0)
    network = Conv4(outputs=setting.ways, filters=setting.filters, image_size=setting.pixels)
    learner = MAML(network, InnerLoop(SGD(0.4), steps=setting.inner_steps))
    images = torch.randn(setting.tasks, 2 * setting.ways, 1, setting.pixels, setting.pixels)
    labels = torch.arange(setting.ways).expand(setting.tasks, -1)
    order = torch.arange(setting.ways).expand(setting.tasks, setting.inner_steps, -1)
    support, query = images.split(setting.ways, 1)
    episode = Episode(support, labels, query, labels, order, torch.arange(setting.tasks), labels)
    given = learner.meta_parameters(), episode, (), torch.zeros(())
    return partial(meta_gradient, Compiled(chunk_gradient(learner.outer_loss)), *given, chunk=CHUNK)


def seconds_of(step: Callable[[], Any]) -> float:
    """Median of the turns, the first of which traces."""
    step()
    times = []
    for _ in range(TURNS):
        start, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - start < SECONDS:
            step()
            count += 1
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times)


def average(grads: list[torch.Tensor], ranks: int) -> None:
    """Take the mean over all ranks, in place."""
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    flat /= ranks


def rank(number: int, ranks: int, folder: str, times: Any) -> None:
    """A process that takes its share of the tasks; the first one reports its times, whole and of the averaging."""
    torch.set_num_threads(1)
    keep_freed_memory()
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=ranks)
    step = meta_step(Setting(tasks=Setting().tasks // ranks))
    grads = list(step().grads.values())

    def whole() -> None:
        average(list(step().grads.values()), ranks)

    found = []
    for run in (whole, lambda: average(grads, ranks)):
        turns = []
        for _ in range(10 * TURNS):
            distributed.barrier()
            start = time.perf_counter()
            run()
            turns.append(time.perf_counter() - start)
        found.append(statistics.median(turns))
    if number == 0:
        times.put(found)
    distributed.destroy_process_group()


def measured_ranks(ranks: int) -> tuple[float, float]:
    """Seconds of a meta-step on so many ranks, and of its averaging alone."""
    context = multiprocessing.get_context("spawn")
    times = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        workers = [context.Process(target=rank, args=(number, ranks, folder, times)) for number in range(ranks)]
        for worker in workers:
            worker.start()
        whole, averaging = times.get()
        for worker in workers:
            worker.join()
    return whole, averaging


def rows() -> list[dict[str, Any]]:
    """Everything that is measured, a row each."""
    found: list[dict[str, Any]] = []
    for name, values in VARIED.items():
        for value in values:
            setting = Setting()._replace(**{name: value})
            step = meta_step(setting)
            seconds = seconds_of(step)
            memory = peak_memory(step, torch.device("cpu"))
            found.append(_row(name, value, setting.tasks / seconds, memory, "measured"))
    whole, averaging = measured_ranks(MEASURED_RANKS)
    for ranks in RANKS:
        step = meta_step(Setting(tasks=Setting().tasks // ranks))
        alone, memory = seconds_of(step), peak_memory(step, torch.device("cpu"))
        seconds = {1: alone, MEASURED_RANKS: whole}.get(ranks, alone + math.log2(ranks) * averaging)
        source = "measured" if ranks <= MEASURED_RANKS else "model"
        found.append(_row("ranks", ranks, Setting().tasks / seconds, memory, source))
    return found


def _row(varied: str, value: int, rate: float, memory: float, source: str) -> dict[str, Any]:
    row = {"varied": varied, "value": value, "tasks_per_second": round(rate, 1), "mib": round(memory, 1)}
    print(row | {"source": source}, flush=True)
    return row | {"source": source}


def draw(found: list[dict[str, Any]]) -> Figure:
    """Rates above, memory below, one column for each quantity."""
    names = [*VARIED, "ranks"]
    figure = Figure(figsize=(15, 5), dpi=120, layout="constrained")
    axes = figure.subplots(2, len(names), sharex="col", sharey="row")
    for column, name in enumerate(names):
        points = [row for row in found if row["varied"] == name]
        for row_axes, key in zip(axes[:, column], ("tasks_per_second", "mib"), strict=True):
            for source, style in (("model", "o:"), ("measured", "o-")):
                chosen = [row for row in points if row["source"] == source]
                if source == "model" and chosen:
                    chosen = [[row for row in points if row["source"] == "measured"][-1], *chosen]
                row_axes.plot([row["value"] for row in chosen], [row[key] for row in chosen], style, color=COLOUR,
                              markerfacecolor="white" if source == "model" else COLOUR)  # fmt: skip
            row_axes.set(xscale="log", yscale="log")
            row_axes.grid(alpha=0.3, which="major")
        lower = axes[1, column]
        values = [row["value"] for row in points]
        lower.set_xticks(values, [f"{value:,.0f}" for value in values], fontsize="small")
        lower.minorticks_off()
        lower.set_xlabel(name.replace("_", " "))
    axes[0, 0].set_ylabel("tasks a second")
    axes[1, 0].set_ylabel("memory of a rank, MiB")
    axes[0, -1].set_title("dotted: model", fontsize="medium")
    return figure


def main() -> None:
    """Measure, and write what was found; with ``--draw``, the figure alone."""
    if sys.argv[1:] == ["--draw"]:
        with (RESULTS / "scaling.csv").open(newline="") as file:
            numbers = ("value", "tasks_per_second", "mib")
            draw([row | {key: float(row[key]) for key in numbers} for row in csv.DictReader(file)]).savefig(PICTURE)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    keep_freed_memory()
    found = rows()
    with (RESULTS / "scaling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    draw(found).savefig(PICTURE)


if __name__ == "__main__":
    main()
