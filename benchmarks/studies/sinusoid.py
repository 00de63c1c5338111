"""Sinusoids: meta-learned initialisations against a network trained jointly on the same tasks.

    python benchmarks/studies/sinusoid.py [--seeds 0 1 2] [--steps-scale 1.0] [--processes 2]

Runs `configs/sinusoid/finn_10shot_maml.yaml`, shortened, and `openai_10shot_reptile.yaml` (five tasks a meta-step with
five times the outer step, which is the same way for every task in fewer calls), and beside each the same architecture
trained on the same tasks without an inner loop. All adapt to the same ten points of 2,000 unseen tasks; the joint
network with the rate, out of a grid and chosen for every number of steps, that is best for it on 2,000 validation
tasks. Prints a table and writes `sinusoid.csv` and `sinusoid.png`. A task that diverges is counted and stays in: its
ratio is infinite where ours does, zero where only the joint network does.
"""

import argparse
import csv
import dataclasses
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_meta.algorithms import MAML, Reptile
from lightning_meta.cli import main as run
from lightning_meta.data import SinusoidEpisodes
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.inner import SGD
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import map_tasks
from lightning_meta.params import Params

CONFIGS = Path(__file__).parents[2] / "configs" / "sinusoid"
TASKS = 2000
RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3]


class Study(NamedTuple):
    """A source's run, and its joint counterpart."""

    algorithm: type[MetaLearner]
    config: str
    meta_steps: int
    inner_steps: int  # at test
    reported: list[int]
    phases: float  # upper end, in units of pi
    changes: list[str]
    joint: list[str]  # changes for the joint counterpart, besides


STUDIES = {
    "MAML": Study(
        MAML, "finn_10shot_maml.yaml", 15000, 10, [1, 5, 10], 1.0, [],
        ["--model.inner.steps=0", "--data.train_shots=1", "--data.train_queries=19"],
    ),
    "Reptile": Study(
        Reptile, "openai_10shot_reptile.yaml", 6000, 32, [10, 32], 2.0,
        ["--data.meta_batch_size=5", "--model.optimizer.lr=0.5"],
        ["--model=MAML", "--model.inner.steps=0", "--model.optimizer=torch.optim.Adam",
         "--model.optimizer.lr=0.001", "--data.train_shots=1", "--data.train_queries=59"],
    ),
}  # fmt: skip


def train(name: str, study: Study, joint: bool, seed: int, scale: float, folder: Path) -> MetaLearner:
    """Run a configuration through the command line, and load its last checkpoint."""
    root = folder / f"{name}_{'joint' if joint else 'meta'}_{seed}"
    arguments = ["fit", f"--config={CONFIGS / study.config}", *study.changes, *(study.joint if joint else [])]
    arguments += [f"--trainer.max_steps={round(study.meta_steps * scale)}", f"--seed_everything={seed}"]
    arguments += [f"--trainer.default_root_dir={root}", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0"]
    arguments += ["--data.test_tasks=25", "--trainer.enable_progress_bar=false", "--checkpoint.monitor=null"]
    if run(arguments):
        sys.exit(f"{name}: training failed")
    (checkpoint,) = root.rglob("last.ckpt")
    return (MAML if joint else study.algorithm).load_from_checkpoint(checkpoint, weights_only=True)


def squared_errors(learner: MetaLearner, episode: Episode, rate: float) -> Tensor:
    """Mean squared error of every task on its queries after every inner step: (tasks, steps + 1)."""
    learner.inner = dataclasses.replace(learner.inner, optimizer=SGD(rate))

    def task_errors(params: Params, task: Episode) -> Tensor:
        return torch.stack([learner.query_loss(fast, task) for fast, _ in learner.adapt(params, task)])

    return map_tasks(task_errors, (None, 0), learner.meta_parameters(), episode)


def episodes(study: Study, seed: int) -> dict[str, Episode]:
    """Unseen tasks of ten points, with a hundred to score on."""
    data = SinusoidEpisodes(shots=10, queries=100, max_phase=study.phases * torch.pi, seed=seed)
    data.connect(InnerBatches(), InnerBatches(study.inner_steps))
    return {split: data.draw(split, torch.arange(TASKS)) for split in ("validation", "test")}  # type: ignore[arg-type]


def compare(name: str, seed: int, scale: float, folder: Path) -> tuple[list[dict], dict[str, Tensor]]:
    """Train both networks of a study; rows of the table and the curves of the figure."""
    study, started = STUDIES[name], time.perf_counter()
    meta = train(name, study, False, seed, scale, folder)
    minutes = (time.perf_counter() - started) / 60
    joint = train(name, study, True, seed, scale, folder)
    unseen = episodes(study, seed)
    own_rate = meta.inner.optimizer.lr  # type: ignore[attr-defined]
    ours = squared_errors(meta, unseen["test"], own_rate)
    by_rate = torch.stack([squared_errors(joint, unseen["validation"], rate).mean(0) for rate in RATES])
    best = by_rate.nan_to_num(torch.inf).argmin(0).tolist()  # for every number of steps
    theirs = {index: squared_errors(joint, unseen["test"], RATES[index]) for index in set(best)}
    reference = torch.stack([theirs[index][:, step] for step, index in enumerate(best)], dim=1)
    rows = []
    for step in study.reported:
        ratios = ours[:, step] / reference[:, step]
        ratios = ratios.where(ours[:, step].isfinite(), torch.inf).where(reference[:, step].isfinite(), 0.0)
        rows.append({
            "algorithm": name, "seed": seed, "meta_steps": round(study.meta_steps * scale), "inner_steps": step,
            "tasks": TASKS, "error": float(ours[:, step].mean()), "joint_error": float(reference[:, step].mean()),
            "joint_rate": RATES[best[step]], "median_ratio": float(ratios.median()),
            "ratio_of_means": float(ours[:, step].mean() / reference[:, step].mean()),
            "diverged": int((~ours[:, step].isfinite()).sum()),
            "joint_diverged": int((~reference[:, step].isfinite()).sum()), "minutes": round(minutes, 2),
        })  # fmt: skip
    grid = torch.linspace(-5, 5, 200)[None, :, None]
    task = Episode(*(tensor[:1] for tensor in unseen["test"]))
    curves = {"ours": ours, "joint": reference, "task_x": task.support_x[0], "task_y": task.support_y[0]}
    order = task.query_x[0, :, 0].argsort()
    curves |= {"query_x": task.query_x[0, order], "query_y": task.query_y[0, order], "x": grid[0]}
    curves["fit"] = meta.all_predictions(task._replace(query_x=grid)).query[0].detach()
    joint.inner = dataclasses.replace(joint.inner, optimizer=SGD(RATES[best[-1]]))
    curves["joint_fit"] = joint.all_predictions(task._replace(query_x=grid)).query[0].detach()
    return rows, curves


def draw(curves: dict[str, dict[str, Tensor]], path: Path) -> None:
    """Errors against inner steps, and one unseen task before and after adaptation; a row for each study."""
    figure = Figure(figsize=(10, 3.6 * len(curves)), layout="constrained")
    for row, (name, curve) in zip(figure.subplots(len(curves), 2, squeeze=False), curves.items(), strict=True):
        for label, key in ((name, "ours"), ("joint training, best rate", "joint")):
            steps, quantiles = range(curve[key].shape[1]), curve[key].quantile(torch.tensor([0.25, 0.5, 0.75]), 0)
            row[0].plot(steps, quantiles[1], label=label)
            row[0].fill_between(steps, quantiles[0], quantiles[2], alpha=0.2)
        row[0].set(yscale="log", xlabel="inner steps", ylabel="squared error", title=f"{TASKS} unseen tasks, quartiles")
        row[1].plot(curve["query_x"], curve["query_y"], color="grey", label="the wave")
        last = curve["ours"].shape[1] - 1
        row[1].plot(curve["x"], curve["fit"][0], ":", label=f"{name}, before")
        row[1].plot(curve["x"], curve["fit"][-1], label=f"{name}, {last} steps")
        row[1].plot(curve["x"], curve["joint_fit"][-1], "--", label=f"joint, {last} steps")
        row[1].scatter(curve["task_x"], curve["task_y"], marker="^", color="black", zorder=3, label="ten points")
        row[1].set(xlabel="x", ylabel="y", title="one unseen task")
        for axes in row:
            axes.legend(fontsize=8)
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the studies and write what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps-scale", type=float, default=1.0, help="shorten every run by this factor")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args()
    rows: list[dict] = []
    curves: dict[str, dict[str, Tensor]] = {}
    jobs = [(name, seed) for seed in arguments.seeds for name in STUDIES]
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.processes, spawn, torch.set_num_threads, (1,)) as pool,
    ):
        compared = [pool.submit(compare, *job, arguments.steps_scale, Path(folder)) for job in jobs]
        for (name, _), future in zip(jobs, compared, strict=True):
            more, curve = future.result()
            rows += more
            curves.setdefault(name, curve)
    rows.sort(key=lambda row: (row["algorithm"], row["inner_steps"], row["seed"]))
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "sinusoid.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(curves, arguments.output / "sinusoid.png")
    print(f"{'':>8} {'steps':>5} {'seed':>4} {'error':>8} {'joint':>8} {'rate':>7} {'median ratio':>12} "
          f"{'ratio of means':>14} {'diverged':>8} {'minutes':>7}")  # fmt: skip
    for row in rows:
        print(f"{row['algorithm']:>8} {row['inner_steps']:>5} {row['seed']:>4} {row['error']:>8.4f} "
              f"{row['joint_error']:>8.4f} {row['joint_rate']:>7} {row['median_ratio']:>12.4f} "
              f"{row['ratio_of_means']:>14.4f} {row['diverged']:>8} {row['minutes']:>7}")  # fmt: skip


if __name__ == "__main__":
    main()
