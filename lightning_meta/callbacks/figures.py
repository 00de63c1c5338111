"""Figures of what a learner does: adaptation curve, confusion, one episode, fitted curves."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_meta.callbacks.learner import Learner, learner_of
from lightning_meta.curve_labels import Label, label_ends, spread
from lightning_meta.episode import Episode
from lightning_meta.metrics import Interval

# Of Okabe and Ito, which can be told apart with any colour vision.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
RIGHT, WRONG = BLUE, ORANGE
MAX_COLUMNS = 5  # images of a class, of the support set and of the queries each
DPI = 120


class Figures(Callback):
    """Draws figures after every validation and test, into TensorBoard and, after a test, as PNG into the run's folder.

    Always the adaptation curve; for classes the confusion matrix of the first task; for images that task with its right
    and wrong predictions; for a regression of one number on another the curves before and after adaptation.
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
        """Draw, and save the figures as files."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        log_dir = trainer.log_dir  # a collective: every rank asks
        if not trainer.is_global_zero or self._episode is None or log_dir is None:
            return
        learner = learner_of(pl_module)
        figures = {"adaptation": adaptation_curve(learner.scores.intervals)}
        if learner.scores.confusion is not None:
            figures["confusion"] = confusion_matrix(learner.scores.confusion)
        with torch.inference_mode(False):
            episode = Episode(*(tensor.clone() for tensor in self._episode))
            if episode.support_x.dim() == 5 and episode.support_x.shape[2] in (1, 3):  # grey or colour
                figures["episode"] = episode_grid(learner, episode)
            elif episode.support_y.is_floating_point() and episode.support_x[0, 0].numel() == 1:
                figures["curves"] = fitted_curves(learner, episode)
        for name, figure in figures.items():
            if stage == "test":
                folder = Path(log_dir)
                folder.mkdir(parents=True, exist_ok=True)
                ensemble = f"_ensemble_of_{len(learner.ensemble)}" if learner.ensemble else ""
                figure.savefig(folder / f"{name}{ensemble}.png", dpi=DPI)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(f"{stage}/{name}", figure, learner.meta_steps)


def adaptation_curve(intervals: dict[str, Interval]) -> Figure:
    """Accuracy (or loss) against inner steps, with its 95% interval."""
    kind, scale, unit = ("accuracy", 100, " (%)") if "query_accuracy" in intervals else ("loss", 1, "")
    parts = {"support": ("support", GREY), "query": ("query, transductive", BLUE)}
    parts["query_nontransductive"] = ("query, non-transductive", ORANGE)
    if torch.equal(intervals[f"query_{kind}"].mean, intervals[f"query_nontransductive_{kind}"].mean):
        parts = {"support": parts["support"], "query": ("query", BLUE)}  # no queries see each other
    figure, axes = _axes(6.4, 3.8)
    ends = []
    for part, (label, colour) in parts.items():
        interval = intervals[f"{part}_{kind}"]
        steps = interval.steps
        mean, half_width = scale * interval.mean.cpu(), scale * interval.half_width.cpu()
        band = torch.stack([mean - half_width, mean + half_width])
        low, high = band.clamp(0, 100) if kind == "accuracy" else band
        axes.plot(steps, mean, color=colour, marker="o" if len(mean) <= 10 else None, markersize=3)
        axes.fill_between(
            steps, low, high.clamp(max=100) if kind == "accuracy" else high, color=colour, alpha=0.15, lw=0
        )
        if bool(mean[-1].isfinite()):
            ends.append(Label(label, colour, steps[-1], float(mean[-1])))
    axes.set(xlabel="inner steps", ylabel=f"{kind}{unit}")
    _title(axes, f"Mean and 95% interval over {interval.tasks} tasks")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    _label(figure, axes, ends)
    return figure


def episode_grid(learner: Learner, episode: Episode) -> Figure:
    """One task of images: a row a class, its support images and then its queries, framed by whether they are right."""
    guesses = learner.all_predictions(episode).query[0, -1].argmax(-1).cpu()
    support_y, query_y = episode.support_y[0].cpu(), episode.query_y[0].cpu()
    support_x, query_x = _images(episode.support_x[0]), _images(episode.query_x[0])
    ways = int(support_y.max()) + 1
    shots = min(MAX_COLUMNS, len(support_y) // ways)
    queries = min(MAX_COLUMNS, len(query_y) // ways)
    figure = Figure(figsize=(shots + queries + 0.9, 1.08 * ways + 0.6), layout="constrained")
    ratios = [*[1.0] * shots, 0.25, *[1.0] * queries]
    grid = figure.subplots(ways, shots + 1 + queries, squeeze=False, gridspec_kw={"width_ratios": ratios})
    for label in range(ways):
        rows, query_rows = (support_y == label).nonzero()[:shots, 0], (query_y == label).nonzero()[:queries, 0]
        for axes, row in zip(grid[label, :shots], rows, strict=True):
            _image(axes, support_x[row], "#BBBBBB")
        grid[label, 0].set_ylabel(f"class {label}", size=8)
        grid[label, shots].set_axis_off()
        for axes, row in zip(grid[label, shots + 1 :], query_rows, strict=True):
            guess = int(guesses[row])
            _image(axes, query_x[row], RIGHT if guess == label else WRONG)
            if guess != label:
                axes.set_xlabel(f"predicted {guess}", size=7, color=WRONG, labelpad=2)
    correct = int((guesses == query_y).sum())
    grid[0, 0].set_title("support", size=9, loc="left")
    grid[0, shots + 1].set_title(f"queries, {correct} of {len(query_y)} correct", size=9, loc="left")
    return figure


def confusion_matrix(counts: torch.Tensor) -> Figure:
    """One task: how many queries of each class (row) were predicted to be of each class (column)."""
    figure, axes = _axes(*[0.42 * len(counts) + 1.5] * 2)
    axes.imshow(counts.cpu().numpy(), cmap="Blues", vmin=0)
    for row, column in counts.nonzero().tolist():
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color="w" if dark else "k")
    axes.set(xlabel="predicted class", ylabel="class")
    _title(axes, f"{int(counts.diag().sum())} of {int(counts.sum())} queries correct")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def fitted_curves(learner: Learner, episode: Episode) -> Figure:
    """One task of a regression: the network's curve before adaptation, after one inner step and after the last."""
    grid = torch.linspace(-5, 5, 200)[None, :, None].to(episode.support_x)
    curves = learner.all_predictions(episode._replace(query_x=grid)).query[0, :, :, 0].detach().cpu()
    figure, axes = _axes(6.4, 3.8)
    x = _drawable(grid[0, :, 0])
    steps = learner.scores.steps
    last = steps[-1]
    names = {last: (f"after {last} steps", BLUE), 1: ("after 1 step", ORANGE), 0: ("before", GREY)}
    ends = []
    for step, curve in zip(steps, curves, strict=True):
        if step not in names:
            continue
        label, colour = names[step]
        axes.plot(x, curve, color=colour, linewidth=1.8 if step == last else 1.2)
        if bool(curve[-1].isfinite()):
            ends.append(Label(label, colour, float(x[-1]), float(curve[-1])))
    support, query = (
        (_drawable(x[0]), _drawable(y[0]))
        for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y))
    )
    axes.scatter(*query, s=12, color="#AAAAAA", zorder=0)
    axes.scatter(*support, s=36, marker="^", color="black", zorder=3)
    axes.set(xlabel="x", ylabel="y")
    _title(axes, f"Task {int(episode.task_ids[0])}: support (triangles) and queries (dots)")
    axes.margins(x=0.02)
    _label(figure, axes, ends)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, size=9.5, loc="left")


def _label(figure: Figure, axes: Axes, ends: list[Label]) -> None:
    """Names at the right end of curves."""
    texts = label_ends(axes, ends)
    figure.draw_without_rendering()  # lays it out
    spread(axes, texts)


def _drawable(values: torch.Tensor) -> torch.Tensor:
    """On the CPU, and in a precision that NumPy has."""
    return values.float().cpu()


def _images(images: torch.Tensor) -> torch.Tensor:
    """Pixels scaled to [0, 1], channels last; those within it are used unchanged."""
    images = _drawable(images).movedim(1, -1)
    low, high = images.min(), images.max()
    return images if low >= 0 and high <= 1 else (images - low) / (high - low)


def _image(axes: Axes, image: torch.Tensor, color: str) -> None:
    axes.imshow(image.squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=color, linewidth=2)
