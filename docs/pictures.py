"""The drawings of README.md and of the site, written into docs/pictures.

    make quickstart
    python docs/pictures.py logs/quickstart/version_0

`words.png` explains the words of the field, `meta_step.png` shows the files of one meta-step, and `episode.png` what
a trained learner does; the last one needs the folder of a finished quickstart.
"""

import argparse
import io
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from pytorch_lightning import Trainer

from lightning_meta import MAML, GlyphEpisodes
from lightning_meta.callbacks.figures import adaptation_curve, episode_grid
from lightning_meta.episode import InnerBatches

FOLDER = Path(__file__).parent / "pictures"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#007A5A", "#666666"
DPI = 160
READING_PATH = [
    ("data/drawing/data_module.py", "train_dataloader", "a loader of whole\nmeta-batches", BLUE),
    ("data/drawing/sampler.py", "TaskSampler", "numbers of the tasks\nof this meta-step", BLUE),
    ("data/drawing/images.py", "draw", "numbers to images\nand labels", BLUE),
    ("episode.py", "Episode", "a batch of tasks:\nseven tensors", BLUE),
    ("learner/meta_learner.py", "training_step", "one meta-step, and\nthe outer optimizer", ORANGE),
    ("learner/task_map.py", "TaskMap", "how many tasks at once,\nand which graph", ORANGE),
    ("mapping/gradient.py", "meta_gradient", "adds up the gradients\nof chunks of tasks", ORANGE),
    ("mapping/graph.py", "Compiled", "chunk_gradient as a graph:\ntraced once, then replayed", ORANGE),
    ("algorithms/maml.py", "outer_loss", "the method:\none task to one loss", GREEN),
    ("inner/unroll.py", "unroll", "the inner steps,\ndifferentiable", GREEN),
]


def draw_episode(run: Path) -> Image.Image:
    """One unseen task with the predictions for it, beside accuracy against inner steps over 600 unseen tasks."""
    (best,) = (run / "checkpoints").glob("best*.ckpt")
    learner = MAML.load_from_checkpoint(best, map_location="cpu", weights_only=True)
    data = GlyphEpisodes(ways=5, shots=1, queries=4, test_tasks=600)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, inference_mode=False)
    trainer.test(learner, data, verbose=False)
    grid = episode_grid(learner, data.draw("test", torch.tensor([0])))
    grid.set_size_inches(5.4, 4.9)
    curve = adaptation_curve(learner.scores.intervals)
    curve.set_size_inches(6.6, 4.5)
    left, right = pixels(grid), pixels(curve)
    gap = DPI // 4
    picture = Image.new("RGB", (left.width + gap + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, (picture.height - left.height) // 2))
    picture.paste(right, (left.width + gap, (picture.height - right.height) // 2))
    return picture


def draw_words() -> Image.Image:
    """The words of the field on one drawing: a 3-way 2-shot task, the two loops, and the two ways to query."""
    data = GlyphEpisodes(ways=3, shots=2, queries=2, train_classes=40, validation_classes=1, test_classes=1)
    data.connect(InnerBatches(1), InnerBatches(1))
    tasks = data.draw("train", torch.arange(3, 6))
    figure, axes = canvas(14.3, 6.4)
    for back in (2, 1):
        box(axes, 0.35 + 0.13 * back, 1.3 + 0.13 * back, 6.1, 4.2, GREY, "white")
    axes.text(0.62, 5.95, "episode: a batch of tasks, here three (meta_batch_size)", size=10, color=GREY)
    box(axes, 0.35, 1.3, 6.1, 4.2, BLUE, "white")
    axes.text(0.55, 5.2, "one task: 3-way 2-shot", size=11.5, weight="bold", color=BLUE, va="center")
    axes.text(2.95, 4.85, "support set: to adapt on", size=10, ha="center", color=BLUE)
    axes.text(5.35, 4.85, "query set: to score on", size=10, ha="center", color=ORANGE)
    for label in range(3):
        bottom = 3.6 - 1.03 * label
        axes.text(1.85, bottom + 0.45, f"class {label}", size=9.5, ha="right", va="center")
        for column in range(2):
            row = 2 * label + column
            image(axes, tasks.support_x[0, row, 0], 2.0 + 1.0 * column, bottom, BLUE)
            image(axes, tasks.query_x[0, row, 0], 4.4 + 1.0 * column, bottom, ORANGE)
    axes.annotate("", (0.85, 1.55), (0.85, 4.55), arrowprops={"arrowstyle": "<->", "color": GREY})
    axes.text(0.75, 3.05, "3 ways", rotation=90, size=10, ha="right", va="center", color=GREY)
    axes.annotate("", (3.95, 1.4), (1.95, 1.4), arrowprops={"arrowstyle": "<->", "color": GREY})
    axes.text(2.95, 1.17, "2 shots of each class", size=10, ha="center", va="top", color=GREY)
    axes.text(5.35, 1.17, "2 queries of each class", size=10, ha="center", va="top", color=GREY)

    box(axes, 7.2, 4.75, 4.1, 0.75, GREY, "#F4F4F4")
    axes.text(9.25, 5.12, "initial weights, shared by all tasks", size=10, ha="center", va="center")
    arrow(axes, (8.3, 4.75), (8.3, 3.85), BLUE)
    axes.text(8.45, 4.3, "inner loop: a few gradient steps\non the support set", size=10, va="center", color=BLUE)
    box(axes, 7.2, 3.1, 4.1, 0.75, BLUE, "#EEF5FA")
    axes.text(9.25, 3.47, "adapted weights, of this task alone", size=10, ha="center", va="center")
    arrow(axes, (8.3, 3.1), (8.3, 2.2), ORANGE)
    axes.text(8.45, 2.65, "outer loss: how well they\nclassify the queries", size=10, va="center", color=ORANGE)
    box(axes, 7.2, 1.45, 4.1, 0.75, ORANGE, "#FCF2EC")
    axes.text(9.25, 1.82, "mean over the tasks of the episode", size=10, ha="center", va="center")
    axes.add_patch(
        FancyArrowPatch(
            (11.3, 1.82), (11.3, 5.12), connectionstyle="arc3,rad=0.32", arrowstyle="-|>", mutation_scale=14,
            color=ORANGE, lw=1.6, clip_on=False,
        )
    )  # fmt: skip
    axes.text(12.05, 3.47, "outer loop: one step on\nthe initial weights", size=10, va="center", color=ORANGE)
    axes.text(
        0.35, 0.55, "transductive: the queries of a task are classified in one batch, so batch norm sees them all. "
        "non-transductive: one query at a time, beside the support set.", size=10, va="center",
    )  # fmt: skip
    return pixels(figure)


def draw_meta_step() -> Image.Image:
    """The ten files that an episode passes on its way from the loader to the optimizer step."""
    figure, axes = canvas(14.2, 5.9)
    width, height, gap = 2.5, 1.45, 0.35
    places = [(0.2 + (width + gap) * (i % 5), 3.7 if i < 5 else 1.0) for i in range(5)]
    places += [(0.2 + (width + gap) * (4 - i), 1.0) for i in range(5)]
    for i, ((file, name, what, colour), (x, y)) in enumerate(zip(READING_PATH, places, strict=True)):
        box(axes, x, y, width, height, colour, "white")
        axes.text(x + 0.12, y + height - 0.27, f"{i + 1}", size=12, weight="bold", color=colour, va="center")
        axes.text(x + 0.5, y + height - 0.27, name, size=10.5, weight="bold", va="center")
        axes.text(x + 0.12, y + height - 0.58, file, size=7.5, color=GREY, va="center", family="monospace")
        axes.text(x + 0.12, y + 0.38, what, size=9.5, va="center")
    middle = height / 2
    for i in range(4):
        (x, y), (next_x, _) = places[i], places[i + 1]
        arrow(axes, (x + width, y + middle), (next_x, y + middle), GREY)
        (x, y), (next_x, _) = places[5 + i], places[6 + i]
        arrow(axes, (x, y + middle), (next_x + width, y + middle), GREY)
    x = places[4][0] + width / 2
    arrow(axes, (x - 0.4, 3.7), (x - 0.4, 1.0 + height), GREY)
    arrow(axes, (x + 0.4, 1.0 + height), (x + 0.4, 3.7), ORANGE)
    axes.text(x - 0.55, 3.08, "episode", size=9.5, ha="right", va="center", color=GREY)
    axes.text(x + 0.55, 3.08, "losses,\ngradient", size=9.5, va="center", color=ORANGE)
    titles = [(0.2, 5.4, "data: numbers to tensors", BLUE), (places[4][0], 5.4, "learner: all methods", ORANGE)]
    titles += [(0.2, 0.55, "the method, on one task", GREEN), (places[7][0], 0.55, "mapping: one task to many", ORANGE)]
    for x, y, text, colour in titles:
        axes.text(x, y, text, size=11, weight="bold", color=colour, va="center")
    return pixels(figure)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes without axes, in which a unit is an inch."""
    figure = Figure(figsize=(width * 0.82, height * 0.82))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, edge: str, face: str) -> None:
    """A rectangle with round corners."""
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, edgecolor=edge, facecolor=face, lw=1.6))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """A straight arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, lw=1.6))


def image(axes: Axes, drawing: torch.Tensor, x: float, y: float, colour: str) -> None:
    """A drawing in a frame."""
    box(axes, x, y, 0.9, 0.9, colour, "white")
    axes.imshow(drawing, cmap="gray_r", vmin=0, vmax=1, extent=(x + 0.05, x + 0.85, y + 0.05, y + 0.85), zorder=3)
    axes.set_aspect("auto")


def pixels(figure: Figure) -> Image.Image:
    """A figure as an image."""
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI)
    return Image.open(file).convert("RGB")


def main() -> None:
    """Draw all of them, or without a run those that need none."""
    parser = argparse.ArgumentParser(description="Draw the pictures of README.md and docs/.")
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished quickstart, for episode.png")
    run = parser.parse_args().run
    drawings = {"words": draw_words(), "meta_step": draw_meta_step()}
    if run is not None:
        drawings["episode"] = draw_episode(run)
    for name, drawing in drawings.items():
        drawing.quantize(64).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
