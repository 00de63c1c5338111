"""A learned optimizer against SGD, RMSprop, Adam and Nesterov's momentum with tuned rates, on problems unseen by all.

    python benchmarks/studies/learned_optimizer.py --root DATA [--steps-scale 1.0] [--seed 0] [--runs FOLDER]

Trains `configs/learned_optimizer/quadratics.yaml` and `mnist.yaml`, shortened, through the command line, the latter in
two stages, and takes the checkpoint with the best validation. Then every optimizer takes a hundred steps on unseen
problems, from the same starting weights and with the same mini-batches: quadratics, and the network of 20 sigmoid units
on MNIST's test images; and, with the rule that was trained on the latter, networks of 40 units, of two hidden layers
and of rectified units, which the rule has never seen (Andrychowicz et al., arXiv 1606.04474, figures 4 and 5). The
rates of torch's optimizers are chosen out of a grid for each kind of problem, by the mean final loss on problems of the
training split; their other settings are torch's, and the momentum .9. Prints a table and writes `learned_optimizer.csv`
and `learned_optimizer.png`. With ``--runs``, the runs are kept in that folder, and those that are there already are not
made again.
"""

import argparse
import csv
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import LearnedOptimizer
from lightning_meta.backbones import MLP
from lightning_meta.cli import main as run
from lightning_meta.data import EpisodeDataModule, MNISTEpisodes, QuadraticEpisodes
from lightning_meta.episode import Episode, InnerBatches, Split
from lightning_meta.inner import InnerLoop, LSTMOptimizer
from lightning_meta.mapping import map_tasks
from lightning_meta.params import Params

CONFIGS = Path(__file__).parents[2] / "configs" / "learned_optimizer"
STEPS = 100
SHOWN = range(0, STEPS + 1, 5)  # steps after which the loss is measured
RATES = [base * 10.0**power for power in range(-3, 1) for base in (1, 1.5, 2, 3, 5, 7)]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "RMSprop": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
    "NAG": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True),
}
LEARNED = "learned (LSTM)"

Row = dict[str, Any]


class Training(NamedTuple):
    """A shortened run of a configuration, which starts from the rule of the run before it, if there is one."""

    meta_steps: int
    validate_every: int
    changes: list[str]


class Problem(NamedTuple):
    """A kind of problem, and the run whose rule is tried on it."""

    run: str
    network: Callable[[], nn.Module]
    tuning: int  # problems that the rates are chosen on
    tasks: int  # unseen problems


ANNEALED = "--model.lr_scheduler=torch.optim.lr_scheduler.CosineAnnealingLR"
MNIST_DATA = ["--model.task_chunk=1", "--data.shots=780", "--data.queries=100", "--data.validation_tasks=5"]
TRAININGS = {
    "quadratics": [Training(6000, 500, [ANNEALED, "--model.optimizer.lr=0.003", "--model.task_chunk=128"])],
    # Truncated after 20 steps, the rule is soon fast at first, but then slower than Nesterov's momentum.
    "mnist": [
        Training(2500, 500, [ANNEALED, "--model.optimizer.lr=0.01", *MNIST_DATA]),
        Training(300, 50, [ANNEALED, "--model.optimizer.lr=0.003", "--model.inner.steps=50", *MNIST_DATA]),
    ],
}

PROBLEMS = {
    "quadratics": Problem("quadratics", lambda: nn.Linear(10, 1, bias=False), 500, 1000),
    "MNIST, 20 sigmoid units": Problem("mnist", lambda: MLP(10, 784, [20], nn.Sigmoid), 10, 50),
    "MNIST, 40 sigmoid units": Problem("mnist", lambda: MLP(10, 784, [40], nn.Sigmoid), 10, 25),
    "MNIST, 2 x 20 sigmoid units": Problem("mnist", lambda: MLP(10, 784, [20, 20], nn.Sigmoid), 10, 25),
    "MNIST, 20 rectified units": Problem("mnist", lambda: MLP(10, 784, [20], nn.ReLU), 10, 25),
}


def train(name: str, arguments: argparse.Namespace, folder: Path) -> tuple[Path, int, float]:
    """Run a configuration's stages, unless that was done: the best checkpoint of the last, meta-steps and minutes."""
    best, total, seconds = None, 0, 0.0
    for stage, training in enumerate(TRAININGS[name]):
        meta_steps = round(training.meta_steps * arguments.steps_scale)
        root = folder / f"{name}_{arguments.seed}_{stage}_{meta_steps}"
        if not list(root.rglob("results.json")):
            shutil.rmtree(root, ignore_errors=True)  # of a run that was interrupted
            settings = ["fit", f"--config={CONFIGS / name}.yaml", *training.changes]
            settings += [f"--seed_everything={arguments.seed}"]
            settings += [f"--trainer.max_steps={meta_steps}"]
            settings += [
                f"--trainer.val_check_interval={max(round(training.validate_every * arguments.steps_scale), 1)}"
            ]
            settings += [f"--trainer.default_root_dir={root}", "--trainer.accelerator=cpu", "--data.test_tasks=10"]
            settings += ["--trainer.enable_progress_bar=false"]
            settings += [f"--data.root={arguments.root}"] if name == "mnist" else []
            settings += [f"--model.inner.optimizer.checkpoint={best}"] if best else []
            if run(settings):
                sys.exit(f"{name}: training failed")
        (best,), (last,) = root.rglob("best*.ckpt"), root.rglob("last.ckpt")
        ended = torch.load(last, weights_only=True, map_location="cpu")
        total, seconds = total + ended["global_step"], seconds + ended["train_seconds"]
    assert best is not None
    return best, total, seconds / 60


def make(
    problem: Problem, checkpoint: Path, arguments: argparse.Namespace
) -> tuple[LearnedOptimizer, EpisodeDataModule]:
    """The trained rule with the network of a problem, and its data, with as many test images as every digit has."""
    trained = torch.load(checkpoint, weights_only=True, map_location="cpu")["hyper_parameters"]["inner"]
    rule = LSTMOptimizer(**trained["optimizer"]["init_args"] | {"checkpoint": str(checkpoint)})
    quadratic = problem.run == "quadratics"
    data: EpisodeDataModule = QuadraticEpisodes(seed=arguments.seed)
    if not quadratic:
        data = MNISTEpisodes(root=str(arguments.root), shots=780, queries=100, train_shots=780, seed=arguments.seed)
    data.connect(InnerBatches(STEPS, None if quadratic else 128), InnerBatches(STEPS, None if quadratic else 128))
    loop = InnerLoop(rule, 20, reduction="sum" if quadratic else "mean")
    loss = functional.mse_loss if quadratic else functional.cross_entropy
    learner = LearnedOptimizer(problem.network(), loop, loss=loss)
    learner.seed = arguments.seed
    return learner, data


def whole_loss(learner: LearnedOptimizer, weights: Params, task: Episode) -> Tensor:
    """The function that is optimised: the loss of the whole support set."""
    return learner.inner_loss(weights, task, torch.arange(len(task.support_x)))


def learned_losses(learner: LearnedOptimizer, split: Split, tasks: Episode) -> Tensor:
    """Loss of every task after the steps of the trained rule that are shown: (tasks, shown)."""

    def losses(params: Params, task: Episode, start: Any) -> Tensor:
        steps = learner.adapt(params, task, start["state"], second_order=False, start=start["weights"])
        shown = [weights for step, (weights, _) in enumerate(steps) if step in SHOWN]
        return torch.stack([whole_loss(learner, weights, task) for weights in shown])

    return map_tasks(losses, (None, 0, 0), learner.meta_parameters(), tasks, learner.problems(split, tasks.task_ids))


def losses_of(
    name: str, rate: float, shown: Sequence[int], learner: LearnedOptimizer, split: Split, tasks: Episode
) -> Tensor:
    """The same with one of torch's, which treat every entry by itself and hence all tasks at once."""
    weights = {name: nn.Parameter(value) for name, value in learner.problems(split, tasks.task_ids)["weights"].items()}
    stepper = OPTIMIZERS[name](weights.values(), lr=rate)
    gradient = torch.func.grad(lambda weights, task, rows: learner.inner_loss(weights, task, rows))
    values = []
    with torch.no_grad():
        for step in range(STEPS + 1):
            current = {name: value.detach() for name, value in weights.items()}
            if step in shown:
                values.append(map_tasks(partial(whole_loss, learner), (0, 0), current, tasks))
            if step < STEPS:
                for name, grad in map_tasks(gradient, (0, 0, 0), current, tasks, tasks.inner_order[:, step]).items():
                    weights[name].grad = grad
                stepper.step()
    return torch.stack(values, 1)


def draw_tasks(data: EpisodeDataModule, split: Split, count: int) -> Iterator[Episode]:
    """Tasks 0..count-1, a few at a time, since images are large."""
    numbers = torch.arange(count).split(count if isinstance(data, QuadraticEpisodes) else 5)
    return (data.draw(split, few) for few in numbers)


def tuned_rates(learner: LearnedOptimizer, data: EpisodeDataModule, count: int) -> dict[str, float]:
    """For each of torch's optimizers the rate of the lowest mean final loss on problems of the training split."""
    finals = {name: torch.zeros(len(RATES)) for name in OPTIMIZERS}
    for tasks in draw_tasks(data, "train", count):
        for name, sums in finals.items():
            sums += torch.stack([losses_of(name, rate, [STEPS], learner, "train", tasks).sum() for rate in RATES])
    return {name: RATES[sums.nan_to_num(math.inf).argmin()] for name, sums in finals.items()}


def compare(name: str, checkpoint: Path, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Tensor]]:
    """Rows of the table, and each optimizer's losses (tasks, shown)."""
    problem = PROBLEMS[name]
    learner, data = make(problem, checkpoint, arguments)
    rates = tuned_rates(learner, data, problem.tuning)
    parts: dict[str, list[Tensor]] = {other: [] for other in (LEARNED, *OPTIMIZERS)}
    for tasks in draw_tasks(data, "test", problem.tasks):
        parts[LEARNED].append(learned_losses(learner, "test", tasks))
        for other, rate in rates.items():
            parts[other].append(losses_of(other, rate, SHOWN, learner, "test", tasks))
    curves = {other: torch.cat(losses) for other, losses in parts.items()}
    rows: list[Row] = []
    for other, losses in curves.items():
        final = losses[:, -1]
        more = final - curves[LEARNED][:, -1]  # than the learned rule, task by task
        rows.append({
            "problem": name, "optimizer": other, "rate": rates.get(other), "tasks": problem.tasks,
            "first": float(losses[:, 0].mean()), "step_20": float(losses[:, SHOWN.index(20)].mean()),
            "step_50": float(losses[:, SHOWN.index(50)].mean()), "final": float(final.mean()),
            "final_half_width_95": float(1.96 * final.std() / problem.tasks**0.5),
            "final_median": float(final.median()), "more_than_learned": float(more.mean()),
            "more_half_width_95": float(1.96 * more.std() / problem.tasks**0.5),
            "higher_than_learned_on": float((more > 0).float().mean()),
        })  # fmt: skip
    return rows, curves


def draw(curves: dict[str, dict[str, Tensor]], path: Path) -> None:
    """Mean loss against steps, a panel for each kind of problem."""
    figure = Figure(figsize=(4.2 * len(curves), 3.8), layout="constrained")
    for axes, (name, losses) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for other, values in losses.items():
            mean, half = values.mean(0), 1.96 * values.std(0) / len(values) ** 0.5
            axes.plot(SHOWN, mean, label=other, linewidth=2.2 if other == LEARNED else 1.2)
            axes.fill_between(SHOWN, mean - half, mean + half, alpha=0.2)
        axes.set(title=name, xlabel="steps", ylabel="loss, mean and 95% interval", yscale="log")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, compare, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/raw")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="shorten every run by this factor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="folder where the runs are, or are to be kept")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    curves: dict[str, dict[str, Tensor]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = arguments.runs or Path(folder)
        for name in arguments.problems:
            checkpoint, meta_steps, minutes = train(PROBLEMS[name].run, arguments, runs)
            started = time.perf_counter()
            more, curves[name] = compare(name, checkpoint, arguments)
            about = {"seed": arguments.seed, "meta_steps": meta_steps, "minutes": round(minutes, 1)}
            rows += [row | about for row in more]
            print(f"{name}: compared in {time.perf_counter() - started:.0f} s, rule of {checkpoint.name}", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "learned_optimizer.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(curves, arguments.output / "learned_optimizer.png")
    print(
        f"{'problem':>28} {'optimizer':>14} {'rate':>6} {'first':>7} {'final':>8} {'':10} {'more than learned':>20} on"
    )
    for row in rows:
        final, half = row["final"], row["final_half_width_95"]
        more, more_half, on = row["more_than_learned"], row["more_half_width_95"], row["higher_than_learned_on"]
        print(f"{row['problem']:>28} {row['optimizer']:>14} {row['rate'] or '':>6} {row['first']:>7.3f} "
              f"{final:>8.4f} ± {half:<8.4f} {more:>9.4f} ± {more_half:<8.4f} {on:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
