"""2-D navigation: how much a policy gains from a few policy-gradient steps on an unseen goal.

    python benchmarks/studies/navigation.py [--seed 0] [--steps 40] [--tasks 200] [--runs FOLDER]

Runs `configs/navigation/finn_maml.yaml` and `finn_pretrained.yaml`, shortened, and adapts both policies to the same
unseen goals with the same noise: MAML's at the rate that it was trained with, the pre-trained one at the rate, out of a
grid, with the best mean return after the last step on validation goals; both at half their rate after the first step,
as the source's own evaluation does (cbfinn/maml_rl, test_maml_point.py). Prints a table and writes `navigation.csv` and
`navigation.png`, after figure 4 of Finn, Abbeel and Levine (arXiv 1703.03400): mean returns with their 95% interval
over goals before and after 1 to 3 inner steps, and trajectories on one goal. A run that FOLDER holds already is read
and not trained again.
"""

import argparse
import csv
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_meta.algorithms import TRPOMAML
from lightning_meta.cli import main as run
from lightning_meta.data import NavigationEpisodes
from lightning_meta.envs.trajectories import Trajectories, roll_out
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.inner import SGD
from lightning_meta.metrics import TaskMean
from lightning_meta.params import Params

CONFIGS = Path(__file__).parents[2] / "configs" / "navigation"
TRAINED = {"MAML (TRPO)": "finn_maml", "pre-trained": "finn_pretrained"}
INNER_STEPS = 3
MAML_RATE = 0.1
RATES = [0.03, 0.1, 0.3, 1.0, 3.0]
SHOWN = 2  # trajectories


@dataclass(frozen=True)
class HalvedSGD(SGD):
    """Gradient descent, at half its rate after the first step."""

    def update(
        self, grads: Params, state: dict[str, Any], fast: Params, meta: Params, step: int
    ) -> tuple[Params, dict[str, Any]]:
        """One step."""
        return SGD(self.lr if step == 0 else self.lr / 2).update(grads, state, fast, meta, step)


class Study(NamedTuple):
    """One policy: what it returned on unseen goals, and the learner for the picture."""

    learner: TRPOMAML
    rate: float
    returns: Tensor  # (tasks, steps + 1), the mean over trajectories


def train(config: str, seed: int, steps: int, folder: Path) -> TRPOMAML:
    """Run a configuration through the command line, unless the folder holds that run, and load its last checkpoint."""
    root = folder / f"{config}_{steps}_{seed}"
    if not list(root.rglob("last.ckpt")):
        arguments = ["fit", f"--config={CONFIGS / config}.yaml", f"--trainer.max_steps={steps}"]
        arguments += [f"--seed_everything={seed}", f"--trainer.default_root_dir={root}", "--trainer.accelerator=cpu"]
        arguments += ["--trainer.limit_val_batches=0", "--checkpoint.monitor=null", "--data.test_tasks=20"]
        arguments += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=10"]
        if run(arguments):
            sys.exit(f"{config}: training failed")
    (checkpoint,) = root.rglob("last.ckpt")
    return TRPOMAML.load_from_checkpoint(checkpoint, weights_only=True)


def returns(learner: TRPOMAML, episode: Episode, rate: float) -> Tensor:
    """The mean return over the query trajectories of every task after every inner step: (tasks, steps + 1)."""
    learner.inner = dataclasses.replace(learner.inner, optimizer=HalvedSGD(rate))
    return learner.all_predictions(episode).query.mean((2, 3))


def study(learner: TRPOMAML, rates: list[float], unseen: dict[str, Episode]) -> Study:
    """Choose the rate on validation goals, and measure on test goals."""
    means = [float(returns(learner, unseen["validation"], rate)[:, -1].mean()) for rate in rates] if rates[1:] else [0]
    rate = rates[max(range(len(rates)), key=means.__getitem__)]
    return Study(learner, rate, returns(learner, unseen["test"], rate))


def interval(values: Tensor) -> tuple[list[float], list[float]]:
    """Mean over tasks and half-width of its 95% interval, by inner step."""
    metric = TaskMean(list(range(values.shape[1])))
    metric.update(values)
    found = metric.compute()
    return found.mean.tolist(), found.half_width.tolist()


def followed(study: Study, task: Episode) -> list[Trajectories]:
    """Trajectories on one task before adaptation and after each inner step."""
    learner = study.learner
    learner.inner = dataclasses.replace(learner.inner, optimizer=HalvedSGD(study.rate))
    met = []
    for fast, _ in learner.adapt(learner.meta_parameters(), task):
        policy = lambda x: learner.run_backbone(fast, x)  # noqa: B023, E731
        met.append(roll_out(learner.environment, policy, task.query_x[:SHOWN], task.query_y[:SHOWN]))
    return met


def draw(studies: dict[str, Study], task: Episode, path: Path) -> None:
    """Returns against inner steps, and one unseen goal."""
    figure = Figure(figsize=(4.6 + 3.4 * len(TRAINED), 3.8), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(TRAINED), width_ratios=[1.3, *[1.0] * len(TRAINED)])
    for name, result in studies.items():
        mean, half_width = map(torch.tensor, interval(result.returns))
        left.plot(range(INNER_STEPS + 1), mean, marker="o", markersize=3, label=f"{name}, rate {result.rate:g}")
        left.fill_between(range(INNER_STEPS + 1), mean - half_width, mean + half_width, alpha=0.25)
    count = len(next(iter(studies.values())).returns)
    left.set(xlabel="inner steps", ylabel="mean return", title=f"{count} unseen goals, 95% interval")
    left.set_xticks(range(INNER_STEPS + 1))
    left.legend(fontsize=8)
    for axes, name in zip(others, TRAINED, strict=True):
        met = followed(studies[name], task)
        for step, color in ((0, "tab:gray"), (1, "tab:orange"), (INNER_STEPS, "tab:green")):
            for row, (path_, mask) in enumerate(zip(met[step].observations, met[step].mask, strict=True)):
                points = path_[mask == 1]
                label = ("before", "after 1 step", f"after {step} steps")[min(step, 2)] if row == 0 else None
                axes.plot(points[:, 0], points[:, 1], color=color, linewidth=0.8, alpha=0.8, label=label)
        axes.plot(*task.query_y[0], marker="*", color="tab:red", markersize=12, linestyle="none", label="goal")
        axes.set(title=f"{name}, one unseen goal", xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), aspect="equal")
        axes.legend(fontsize=7)
    for axes in (left, *others):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the study and write what it gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40, help="meta-steps of each run; the source's 500")
    parser.add_argument("--tasks", type=int, default=200, help="unseen goals")
    parser.add_argument("--runs", type=Path, help="folder of the runs; a temporary one by default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = NavigationEpisodes(seed=arguments.seed)
    data.connect(InnerBatches(), InnerBatches(INNER_STEPS))
    unseen = {
        "validation": data.draw("validation", torch.arange(arguments.tasks // 2)),
        "test": data.draw("test", torch.arange(arguments.tasks)),
    }
    studies: dict[str, Study] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, config in TRAINED.items():
            learner = train(config, arguments.seed, arguments.steps, arguments.runs or Path(temporary))
            rates = [MAML_RATE] if config == "finn_maml" else RATES
            studies[name] = study(learner, rates, unseen)
    rows = [
        {
            "policy": name, "inner_steps": step, "mean_return": round(mean, 3), "half_width_95": round(half_width, 3),
            "tasks": arguments.tasks, "inner_rate": result.rate, "meta_steps": result.learner.meta_steps,
            "seed": arguments.seed, "minutes": round(result.learner.train_seconds / 60, 2),
        }
        for name, result in studies.items()
        for step, (mean, half_width) in enumerate(zip(*interval(result.returns), strict=True))
    ]  # fmt: skip
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "navigation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(studies, Episode(*(tensor[0] for tensor in unseen["test"])), arguments.output / "navigation.png")
    print(f"{'policy':>12} {'rate':>6} {'inner steps':>11} {'mean return':>18} {'meta-steps':>10} {'minutes':>7}")
    for row in rows:
        value = f"{row['mean_return']:.2f} ± {row['half_width_95']:.2f}"
        print(f"{row['policy']:>12} {row['inner_rate']:>6g} {row['inner_steps']:>11} {value:>18} "
              f"{row['meta_steps']:>10} {row['minutes']:>7}")  # fmt: skip


if __name__ == "__main__":
    main()
