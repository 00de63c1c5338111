"""Tasks per second of meta-training, beside learn2learn and a plain ``torch.func.vmap``, in one run.

    python benchmarks/speed/throughput.py [--quick] [--root DATA] [--rounds 5] [--seconds 0.4]

Every case runs a real `Trainer.fit`. After a few meta-steps it pauses, and the others take their turn in the same
process: learn2learn from its sampler to its optimizer, and each one's computation alone on a fixed batch. With
``--root``, Omniglot comes from there and learn2learn samples as in its examples, from its benchmark; without, and as a
column of its own, it samples from images in memory. Prints a table and writes ``throughput.csv`` and ``.png`` (with
``--quick``: ``throughput_quick``). ``floor`` is the arithmetic: the operations of the meta-step over the machine's
measured rate of matrix products; ``x floor`` is how far the computation is above it.
"""

import argparse
import csv
import logging
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # before torch: its profiler reports every start

import contenders
import torch
from cases import FULL, QUICK, Case, data_of, learner_of
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lightning_meta.allocator import keep_freed_memory
from lightning_meta.learner import MetaLearner

RESULTS = Path(__file__).parents[1] / "results"


def convolution_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Operations of a convolution with groups, from shapes."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def convolution_backward_flops(grad: Any, x: Any, weight: Any, *rest: Any, out_shape: Any) -> int:
    """The same number for each of the two gradients; PyTorch's own count forgets the groups."""
    return 2 * math.prod(grad) * math.prod(weight[1:]) * sum(rest[-1][:2])


CONVOLUTIONS = {
    torch.ops.aten.convolution: convolution_flops,
    torch.ops.aten.convolution_backward: convolution_backward_flops,
}


class Alternate(Callback):
    """Interrupts a fit every few meta-steps, to let the other contenders have their turn."""

    def __init__(self, case: Case, rounds: int, seconds: float, root: str | None) -> None:
        self.case, self.rounds, self.seconds, self.root = case, rounds, seconds, root
        self.rates: dict[str, list[float]] = defaultdict(list)  # contender -> tasks/s of every round
        self.memory: dict[str, float] = {}  # MiB at the peak of one meta-step
        self.flops = 0
        self.convolution_share = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, MetaLearner)
        case, data, device = self.case, trainer.datamodule, pl_module.device  # type: ignore[attr-defined]
        episode = type(data.draw("train", torch.arange(1)))(
            *(tensor.to(device) for tensor in data.draw("train", torch.arange(case.tasks)))
        )
        images = data.shots_in("train") + (0 if case.algorithm == "Reptile" else data.queries_in("train"))
        samplers = {"learn2learn_in_memory": contenders.in_memory(data, case.ways, images)}
        if self.root and case.backbone == "omniglot":
            samplers["learn2learn"] = contenders.their_benchmark(self.root, case.ways, images)
        else:
            samplers["learn2learn"] = samplers.pop("learn2learn_in_memory")
        samplers["learn2learn_compute"] = contenders.fixed_tasks(episode)
        self.steps: dict[str, contenders.Step] = {}
        for name, sample in samplers.items():
            network = contenders.their_network(case.backbone, case.ways).to(device)
            if case.algorithm == "Reptile":
                self.steps[name] = contenders.their_reptile(network, sample, case.tasks, case.inner_steps, 10)
            elif case.algorithm == "ANIL":
                self.steps[name] = contenders.their_anil(network, sample, case.tasks, case.shots, case.inner_steps, 0.4)
            else:
                self.steps[name] = contenders.their_maml(
                    network, sample, case.tasks, case.shots, case.inner_steps, 0.4, case.algorithm == "FOMAML"
                )
        optimizer = trainer.optimizers[0]

        def compute() -> None:
            contenders.apply_gradient(pl_module, pl_module.task_map.meta_gradient(episode, 0.0).grads, optimizer)

        self.steps |= {"vmap_compute": contenders.plain_vmap(pl_module, episode, optimizer), "compute": compute}
        for step in self.steps.values():  # the first compiles or fills caches
            step()
        self.memory = {name: peak_memory(self.steps[name], device) for name in ("compute", "learn2learn_compute")}
        self.convolution_share = convolution_share(compute)
        with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as counter:
            compute()
        self.flops = counter.get_total_flops()
        self.ours, self.since, self.skip = 0, 0.0, True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        synchronise(pl_module.device)
        now = time.perf_counter()
        if self.skip:  # a step after a pause begins before it
            self.skip, self.ours, self.since = False, 0, now
            return
        self.ours += 1
        if now - self.since < self.seconds:
            return
        self.rates["lightning_meta"].append(self.ours * self.case.tasks / (now - self.since))
        for name, step in self.steps.items():
            self.rates[name].append(self.case.tasks / time_of(step, self.seconds, pl_module.device))
        self.skip = True
        trainer.should_stop = len(self.rates["lightning_meta"]) == self.rounds


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_of(step: contenders.Step, seconds: float, device: torch.device) -> float:
    """Seconds of one step, over about that long; on a GPU between two of the device's events."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
    start, count = time.perf_counter(), 0
    if events:
        events[0].record()
    while count == 0 or time.perf_counter() - start < seconds:
        step()
        count += 1
        synchronise(device)
    if events:
        events[1].record()
        synchronise(device)
        return events[0].elapsed_time(events[1]) / 1e3 / count
    return (time.perf_counter() - start) / count


def peak_memory(step: contenders.Step, device: torch.device) -> float:
    """MiB of tensors that one step holds at most, beside those that it finds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    kineto: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    events = sorted((event for event in kineto.events() if event.name() == "[memory]"), key=lambda e: e.start_ns())
    held = torch.tensor([event.nbytes() for event in events], dtype=torch.float64).cumsum(0)
    return held.max().item() / 2**20


def convolution_share(step: contenders.Step) -> float:
    """The part of a step's operator time that convolutions and their gradients take."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        step()
    times = [
        (event.key, event.self_device_time_total or event.self_cpu_time_total) for event in profiler.key_averages()
    ]
    return sum(time for key, time in times if "conv" in key) / sum(time for _, time in times)


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large product in float32."""
    matrix: Tensor = torch.randn(2048, 2048, device=device)
    times = [time_of(lambda: matrix @ matrix, 0.2, device) for _ in range(5)]
    return 2 * 2048**3 / min(times)


def measure(case: Case, rounds: int, seconds: float, root: str | None, rate: float) -> dict[str, Any]:
    """One row of the table: medians, and the ratio end to end with its extremes over the rounds."""
    torch.manual_seed(0)
    alternate = Alternate(case, rounds, seconds, root)
    trainer = Trainer(
        max_steps=10**6, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[alternate], limit_val_batches=0, log_every_n_steps=0,
    )  # fmt: skip
    learner = learner_of(case)
    trainer.fit(learner, datamodule=data_of(case, root))
    row: dict[str, Any] = case._asdict() | {"device": device_name(), "ranks": 1, "chunk": learner.task_map.chunk.size}
    row |= {name: round(statistics.median(rates), 2) for name, rates in alternate.rates.items()}
    for name, theirs in (("ratio", "learn2learn"), ("ratio_in_memory", "learn2learn_in_memory")):
        ratios = [
            ours / their
            for ours, their in zip(alternate.rates["lightning_meta"], alternate.rates[theirs], strict=False)
        ]
        if ratios:
            row[name] = round(statistics.median(ratios), 2)
            row[f"{name}_spread"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    row["ratio_compute"] = round(row["compute"] / row["learn2learn_compute"], 2)
    row["ratio_vmap"] = round(row["compute"] / row["vmap_compute"], 2)
    row |= {f"peak_mib_{name}": round(value, 1) for name, value in alternate.memory.items()}
    row["convolution_share"] = round(alternate.convolution_share, 2)
    floor = alternate.flops / rate
    row |= {"gflop": round(alternate.flops / 1e9, 2), "floor_ms": round(1e3 * floor, 1)}
    row["x_floor"] = round(case.tasks / row["compute"] / floor, 2)
    return row


def device_name() -> str:
    """The machine's, without its number of processors."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def ranks_row(ranks: int, root: str | None) -> dict[str, Any]:
    """MAML 5w1s, 32 tasks, on that many processes of this machine, from the command line's own measurement."""
    with tempfile.TemporaryDirectory() as logs:
        command = [sys.executable, "-m", "lightning_meta", "fit", "--model=MAML", "--model.backbone=Conv4"]
        command += ["--data=OmniglotEpisodes", f"--data.root={root}"] if root else ["--data=GlyphEpisodes"]
        command += ["--data.ways=5", "--data.shots=1", "--data.queries=1", "--data.meta_batch_size=32"]
        command += ["--data.test_tasks=0", "--data.validation_tasks=0", "--trainer.max_steps=150"]
        command += [
            "--checkpoint.monitor=null",
            "--trainer.log_every_n_steps=50",
            "--trainer.enable_progress_bar=false",
        ]
        command += [f"--trainer.devices={ranks}", f"--trainer.default_root_dir={logs}"]
        command += ["--trainer.accelerator=cpu", "--trainer.strategy=ddp"] if ranks > 1 else []
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        (metrics,) = Path(logs).rglob("metrics.csv")
        with metrics.open() as file:
            rates = [row["train/tasks_per_second"] for row in csv.DictReader(file)]
    last = float([rate for rate in rates if rate][-1])
    case = Case("MAML", "5w1s", 1, "omniglot", 32)
    return case._asdict() | {"device": device_name(), "ranks": ranks, "lightning_meta": round(last, 2)}


def write(rows: list[dict[str, Any]], name: str) -> None:
    """The CSV and the picture."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    drawn = [row for row in rows if "ratio" in row][::-1]
    figure = Figure(figsize=(7.5, 1 + 0.5 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(drawn):
        low, high = (float(value) for value in re.findall(r"[\d.]+", row["ratio_spread"]))
        axes.barh(place + 0.2, row["ratio"], 0.38, color="tab:blue", label="end to end")
        axes.plot([low, high], [place + 0.2] * 2, color="black", linewidth=1, label="spread over rounds")
        axes.barh(place - 0.2, row["ratio_compute"], 0.38, color="tab:orange", label="computation alone")
    names = [
        f"{r['algorithm']} {r['task']}, {r['inner_steps']} step(s)\n{r['backbone']}, {r['tasks']} tasks" for r in drawn
    ]
    axes.set_yticks(range(len(drawn)), names, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"tasks per second, learn2learn = 1 ({drawn[0]['device']}, float32)")
    handles, labels = axes.get_legend_handles_labels()
    named = {label: (handle, label) for handle, label in zip(handles, labels, strict=True)}
    axes.legend(*zip(*named.values(), strict=True), loc="lower right")
    axes.set_ylim(-0.7, len(drawn) - 0.3)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first four cases of docs/speed.md")
    parser.add_argument("--root", help="folder that holds omniglot-py; without it, characters are drawn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one turn")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    keep_freed_memory()
    rate = matrix_rate(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"{device_name()}: {rate / 1e9:.0f} GFLOP/s of float32 matrix products")
    shown = ["learn2learn", "lightning_meta", "ratio", "ratio_spread", "ratio_in_memory", "ratio_compute", "ratio_vmap",
             "chunk", "x_floor"]  # fmt: skip
    print(f"{'case':<46}" + "".join(f"{name:>22}" for name in shown))
    rows = []
    for case in QUICK if options.quick else FULL:
        rows.append(measure(case, options.rounds, options.seconds, options.root, rate))
        name = f"{case.algorithm} {case.task}, {case.inner_steps} steps, {case.backbone}, {case.tasks} tasks"
        print(f"{name:<46}" + "".join(f"{rows[-1].get(column, ''):>22}" for column in shown), flush=True)
    if not options.quick:
        rows += [ranks_row(ranks, options.root) for ranks in (1, 2)]
        print(*(f"{row['ranks']} rank(s): {row['lightning_meta']} tasks/s" for row in rows[-2:]), sep="\n")
    write(rows, "throughput_quick" if options.quick else "throughput")


if __name__ == "__main__":
    main()
