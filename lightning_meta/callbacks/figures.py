"""Pictures of what a learner does: adaptation curve, one episode, fitted curves."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_meta.episode import Episode, Predictions
from lightning_meta.metrics import Interval

RIGHT, WRONG = "tab:green", "tab:red"
SUPPORT_COLUMNS = 5


@runtime_checkable
class Predictor(Protocol):
    """What a picture is drawn from."""

    members: int  # of an ensemble
    intervals: dict[str, Interval]
    confusion: torch.Tensor | None  # of the first task's queries after the last step, (ways, ways)

    def all_predictions(self, episode: Episode) -> Predictions:
        """Outputs of every task before adaptation and after each inner step."""


class Figures(Callback):
    """Draws after every validation and test, into TensorBoard and, after a test, as PNG into the run's folder.

    An adaptation curve always; for classes which of them the first task's queries were taken for; for images that task
    with right and wrong predictions; for a regression of one number on one number the curves before and after
    adaptation.
    """

    def __init__(self) -> None:
        self._episode: Episode | None = None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Episode, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep the first task, which is the same in every validation."""
        if batch_idx == 0 and batch.tasks:
            self._episode = Episode(*(tensor[:1].clone() for tensor in batch))

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, and keep the pictures as files."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        log_dir = trainer.log_dir  # a collective: every rank asks
        if not trainer.is_global_zero or self._episode is None or log_dir is None:
            return
        assert isinstance(pl_module, Predictor)
        figures = {"adaptation": adaptation_curve(pl_module.scores.intervals)}
        if pl_module.scores.confusion is not None:
            figures["confusion"] = confusion_matrix(pl_module.scores.confusion)
        with torch.inference_mode(False):
            episode = Episode(*(tensor.clone() for tensor in self._episode))
            if episode.support_x.dim() == 5 and episode.support_x.shape[2] in (1, 3):  # a picture has no other channels
                figures["episode"] = episode_grid(pl_module, episode)
            elif episode.support_y.is_floating_point() and episode.support_x[0, 0].numel() == 1:
                figures["curves"] = fitted_curves(pl_module, episode)
        for name, figure in figures.items():
            if stage == "test":
                folder = Path(log_dir)
                folder.mkdir(parents=True, exist_ok=True)
                ensemble = f"_ensemble_of_{pl_module.ensemble_size}" * (pl_module.ensemble_size > 1)
                figure.savefig(folder / f"{name}{ensemble}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"{stage}/{name}", figure, trainer.global_step)


def adaptation_curve(intervals: dict[str, Interval]) -> Figure:
    """Accuracy (or loss) against inner steps, with its 95% interval."""
    kind = "accuracy" if "query_accuracy" in intervals else "loss"
    figure, axes = _axes(6.4, 4.2)
    labels = {"support": "support", "query": "query, transductive", "query_nontransductive": "query, non-transductive"}
    for part, label in labels.items():
        interval = intervals[f"{part}_{kind}"]
        steps = range(len(interval.mean))
        mean, half_width = interval.mean.cpu(), interval.half_width.cpu()
        axes.plot(steps, mean, label=label, marker="o" if len(mean) < 20 else None, markersize=3)
        axes.fill_between(steps, mean - half_width, mean + half_width, alpha=0.25)
    axes.set(xlabel="inner steps", ylabel=kind, title=f"{interval.tasks} tasks, mean and 95% interval")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def episode_grid(learner: Predictor, episode: Episode) -> Figure:
    """One task of images: a row a class, its support images and then its queries with the class they were taken for."""
    guesses = learner.all_predictions(episode).query[0, -1].argmax(-1).cpu()
    support_y, query_y = episode.support_y[0].cpu(), episode.query_y[0].cpu()
    support_x, query_x = _pictures(episode.support_x[0]), _pictures(episode.query_x[0])
    ways = int(support_y.max()) + 1
    shots = min(SUPPORT_COLUMNS, len(support_y) // ways)
    queries = min(SUPPORT_COLUMNS, len(query_y) // ways)
    figure = Figure(figsize=(1.1 * (shots + queries) + 0.6, 1.25 * ways + 0.5), layout="constrained")
    grid = figure.subplots(ways, shots + queries, squeeze=False)
    for label in range(ways):
        rows, query_rows = (support_y == label).nonzero()[:shots, 0], (query_y == label).nonzero()[:queries, 0]
        for axes, row in zip(grid[label, :shots], rows, strict=True):
            _picture(axes, support_x[row], f"class {label}", "black")
        for axes, row in zip(grid[label, shots:], query_rows, strict=True):
            guess = int(guesses[row])
            _picture(axes, query_x[row], f"taken for {guess}", RIGHT if guess == label else WRONG)
    figure.suptitle(
        f"support (left), queries (right): {int((guesses == query_y).sum())} of {len(query_y)} right", size=9
    )
    return figure


def confusion_matrix(counts: torch.Tensor) -> Figure:
    """One task: how many queries of each class (row) were taken for each class (column)."""
    figure, axes = _axes(*[0.45 * len(counts) + 1.6] * 2)
    axes.imshow(counts.cpu(), cmap="Blues", vmin=0)
    for row, column in counts.nonzero().tolist():
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color="w" if dark else "k")
    axes.set(xlabel="taken for", ylabel="class", title=f"{int(counts.diag().sum())} of {int(counts.sum())} right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def fitted_curves(learner: Predictor, episode: Episode) -> Figure:
    """One task of a regression: the network's curve before adaptation, after one inner step and after the last."""
    grid = torch.linspace(-5, 5, 200, device=episode.support_x.device)[None, :, None]
    curves = learner.all_predictions(episode._replace(query_x=grid)).query[0, :, :, 0].detach().cpu()
    figure, axes = _axes(6.4, 4.2)
    x = grid[0, :, 0].cpu()
    for step in sorted({0, min(1, len(curves) - 1), len(curves) - 1}):
        axes.plot(x, curves[step], label=f"after {step} steps" if step else "before", alpha=0.4 + 0.6 * (step > 0))
    axes.scatter(episode.query_x[0].cpu(), episode.query_y[0].cpu(), marker=".", color="grey", label="queries")
    axes.scatter(episode.support_x[0].cpu(), episode.support_y[0].cpu(), marker="^", color="black", label="support")
    axes.set(xlabel="x", ylabel="y", title=f"task {int(episode.task_ids[0])}")
    axes.legend()
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _pictures(images: torch.Tensor) -> torch.Tensor:
    """Pixels in 0..1, stretched where they were normalised."""
    images = images.cpu().movedim(1, -1)
    low, high = images.min(), images.max()
    return images if low >= 0 and high <= 1 else (images - low) / (high - low)


def _picture(axes: Axes, image: torch.Tensor, title: str, color: str) -> None:
    axes.imshow(image.squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, size=7, color=color)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=color, linewidth=2)
