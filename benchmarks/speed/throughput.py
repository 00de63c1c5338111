"""Rates of meta-training beside learn2learn, JAX, TorchOpt, parallel-metalearn and plain PyTorch, in one run.

    python benchmarks/speed/throughput.py [--quick] [--root DATA] [--threads 1 2] [--rounds 5] [--seconds 0.4]

Every case runs a real `Trainer.fit`. After a few meta-steps it pauses, and the others take their turn in the same
process: learn2learn from its sampler to its optimizer, and each one's computation alone on a fixed batch, after its
gradient was compared with ours. With ``--root``, Omniglot comes from there and learn2learn samples as in its examples,
from its benchmark; without, and as a column of its own, it samples from images in memory. ``--threads`` repeats all
this in a process of its own for each number of CPU cores. Prints tables and writes ``throughput.csv``, ``.png`` and
``contenders.csv`` (with ``--quick``: ``throughput_quick``, ``contenders_quick``). ``floor`` is the arithmetic: the
operations of the meta-step over the rate of the fastest matrix product that a library here reaches; ``x floor`` is how
far a computation is above it.
"""

import argparse
import csv
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from alternate import FILES, LOOP, MEMORY, OURS, RUN, VMAP, Alternate, Errors
from cases import FULL, QUICK, Case, data_of, learner_of
from contenders import TOLERANCE
from floor import matrix_rates
from matplotlib.figure import Figure
from pytorch_lightning import Trainer

from lightning_meta.process import keep_freed_memory

RESULTS = Path(__file__).parents[1] / "results"
Row = dict[str, Any]


def measure(case: Case, options: argparse.Namespace, rate: float, errors: Errors) -> tuple[Row, list[Row]]:
    """The row of a case in the table, and those of its contenders; gradients' errors are added to ``errors``."""
    torch.manual_seed(0)
    alternate = Alternate(case, options.rounds, options.seconds, options.root, errors)
    trainer = Trainer(
        max_steps=10**6, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[alternate], limit_val_batches=0, log_every_n_steps=0,
    )  # fmt: skip
    learner = learner_of(case)
    trainer.fit(learner, datamodule=data_of(case, options.root))
    setting = case._asdict() | {"device": device_name()}
    floor = alternate.operations / rate
    rows = [
        setting | contender_row(alternate, name, RUN if "whole run" in name else OURS, floor)
        for name in [RUN, *alternate.steps, *alternate.remarks]
    ]

    row: Row = setting | {"ranks": 1, "chunk": learner.task_map.chunk.size}
    speeds = {name: [case.tasks / turn.wall for turn in turns] for name, turns in alternate.turns.items()}
    columns = {"lightning_meta": RUN, "learn2learn": FILES, "learn2learn_in_memory": MEMORY, "compute": OURS,
               "learn2learn_compute": LOOP, "vmap_compute": VMAP}  # fmt: skip
    if FILES not in speeds and MEMORY in speeds:  # without files, there is one sampler
        columns["learn2learn"] = columns.pop("learn2learn_in_memory")
    row |= {key: round(statistics.median(speeds[name]), 2) for key, name in columns.items() if name in speeds}
    for key, ours, theirs in (("ratio", RUN, columns["learn2learn"]), ("ratio_in_memory", RUN, MEMORY),
                              ("ratio_compute", OURS, LOOP), ("ratio_vmap", OURS, VMAP)):  # fmt: skip
        if theirs in speeds and not (key == "ratio_in_memory" and "learn2learn_in_memory" not in columns):
            row[key], row[f"{key}_spread"] = ratio(speeds[ours], speeds[theirs])
    row |= {f"peak_mib_{'compute' if name == OURS else 'learn2learn_compute'}": round(value, 1)
            for name, value in alternate.memory.items()}  # fmt: skip
    row["convolution_share"] = round(alternate.convolution_share, 2)
    row |= {"gflop": round(alternate.operations / 1e9, 2), "floor_ms": round(1e3 * floor, 1)}
    row["x_floor"] = round(case.tasks / row["compute"] / floor, 2)
    return row, rows


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, str]:
    """Median of the ratios of one turn each, and their extremes."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=False)]
    return round(statistics.median(ratios), 2), f"{min(ratios):.2f} to {max(ratios):.2f}"


def contender_row(alternate: Alternate, name: str, beside: str, floor: float) -> Row:
    """Milliseconds of a meta-step, their ratio to ours in the same turns, and whether the gradient is right."""
    if name in alternate.remarks:
        return {"contender": name, "remark": alternate.remarks[name]}
    walls, processor = ([1e3 * seconds for seconds in column] for column in zip(*alternate.turns[name], strict=True))
    row: Row = {"contender": name, "turns": len(walls), "wall_ms": round(statistics.median(walls), 1)}
    row["wall_ms_spread"] = f"{min(walls):.1f} to {max(walls):.1f}"
    row["cpu_ms"] = round(statistics.median(processor), 1)
    ours = [[1e3 * seconds for seconds in column] for column in zip(*alternate.turns[beside], strict=True)]
    row["times_ours"], row["times_ours_spread"] = ratio(walls, ours[0])
    row["cpu_times_ours"], _ = ratio(processor, ours[1])
    if beside == OURS:
        row["x_floor"] = round(statistics.median(walls) / 1e3 / floor, 2)
    if name in alternate.rounding:
        row["error_float32"] = f"{alternate.rounding[name]:.1e}"
    error = alternate.errors.get((alternate.case, name))
    if error is not None:
        row["error_float64"] = f"{error:.1e}"
        row["remark"] = "right" if error < TOLERANCE else "WRONG gradient"
    return row


def device_name() -> str:
    """The machine's, without its number of processors."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def ranks_row(ranks: int, root: str | None) -> Row:
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


def write(rows: list[Row], name: str) -> None:
    """A CSV."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[Row], name: str) -> None:
    """The picture, of the last number of threads."""
    drawn = [row for row in rows if "ratio" in row and row["device"] == rows[-1]["device"]][::-1]
    if not drawn:
        return
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


def show(title: str, columns: dict[str, int], rows: list[Row]) -> None:
    """Print rows below one another."""
    print(f"{title:<46}" + "".join(f"{name:>{width}}" for name, width in columns.items()))
    for row in rows:
        values = "".join(f"{row.get(name, ''):>{width}}" for name, width in columns.items())
        print(f"{row[title]:<46}{values if values.strip() != row.get('remark') else row['remark']}")
    sys.stdout.flush()


def measure_all(
    options: argparse.Namespace, threads: int | None, errors: Errors
) -> tuple[list[Row], list[Row], Errors]:
    """All cases in this process; the rows of the table, those of the contenders, and the errors of their gradients."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    rates = matrix_rates(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    fastest = max(rates, key=lambda name: rates[name])
    listed = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    print(f"\n{device_name()}: GFLOP/s of a float32 matrix product: {listed}; the floor is that of {fastest}\n")
    shown = {"wall_ms": 9, "wall_ms_spread": 20, "cpu_ms": 9, "times_ours": 11, "times_ours_spread": 19,
             "cpu_times_ours": 15, "x_floor": 9, "error_float64": 15, "error_float32": 15, "remark": 18}  # fmt: skip
    table, contenders = [], []
    for case in QUICK if options.quick else FULL:
        row, rows = measure(case, options, rates[fastest], errors)
        name = f"{case.algorithm} {case.task}, {case.inner_steps} steps, {case.backbone}, {case.tasks} tasks"
        table.append(row)
        contenders += [row | {"fastest_product": fastest} for row in rows]
        show(name, shown, [row | {name: f"  {row['contender']}"} for row in rows])
        print(f"  {row['gflop']} GFLOP, floor {row['floor_ms']} ms, tasks in a chunk: {row['chunk']}\n", flush=True)
    show("case", {"learn2learn": 13, "lightning_meta": 16, "ratio": 8, "ratio_spread": 16, "ratio_in_memory": 17,
                  "ratio_compute": 15, "ratio_vmap": 12, "x_floor": 9},
         [row | {"case": f"{row['algorithm']} {row['task']}, {row['inner_steps']} steps, {row['backbone']}, "
                         f"{row['tasks']} tasks"} for row in table])  # fmt: skip
    return table, contenders, errors


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first five cases of docs/speed.md")
    parser.add_argument("--root", help="folder that holds omniglot-py; without it, characters are drawn")
    parser.add_argument("--threads", type=int, nargs="+", default=[None], help="CPU cores, one run for each number")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one turn")
    options = parser.parse_args()
    rows: list[Row] = []
    contenders: list[Row] = []
    errors: Errors = {}
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with tempfile.TemporaryDirectory() as programs:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)  # the second process compiles nothing
        for threads in options.threads:
            if allowed and threads:  # every library's pool is as large as the cores that it finds when it starts
                os.sched_setaffinity(0, allowed[:threads])
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                table, others, errors = process.submit(measure_all, options, threads, errors).result()
            rows += table
            contenders += others
    if allowed:
        os.sched_setaffinity(0, allowed)
    if not options.quick:
        rows += [ranks_row(ranks, options.root) for ranks in (1, 2)]
        print(*(f"{row['ranks']} rank(s): {row['lightning_meta']} tasks/s" for row in rows[-2:]), sep="\n")
    suffix = "_quick" if options.quick else ""
    write(rows, f"throughput{suffix}")
    write(contenders, f"contenders{suffix}")
    draw(rows, f"throughput{suffix}")


if __name__ == "__main__":
    main()
