"""The pictures of `lightning-meta demo` in README.md: `demo.png` and the animation `demo.webp`, into docs/pictures.

    OMP_NUM_THREADS=1 python benchmarks/studies/demo_pictures.py --data DATA

DATA holds Omniglot's images and strokes, as `demo_trials.py` says. Three characters that the checkpoint was not trained
on are drawn on the served page, and then one of them as another person drew it. The curve beside the page is the
accuracy on test tasks before and after each inner step.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_trials import (
    STROKES,
    Drawing,
    chromium,
    default_checkpoint,
    draw,
    draw_stroke,
    opened,
    read_drawing,
    served,
    wait_for_answer,
)
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from pytorch_lightning import Trainer

from lightning_meta.data import OmniglotEpisodes
from lightning_meta.inference import load_learner, pretrained
from lightning_meta.learner_file import describe_checkpoint
from lightning_meta.metrics import Interval

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
CHARACTERS = {"Balinese": "character10", "Greek": "character14", "Korean": "character40"}  # of the test characters
EXAMPLES, QUERY = (3, 3, 3), ("Korean", 11)  # who drew them, of 20
GROUND, LINE, INK, QUIET = "#f7f5f0", "#dcd7cb", "#1d1b26", "#5c586b"  # as on the page
BLUE, ORANGE = "#2563eb", "#c2410c"
CURVES = (
    ("support_accuracy", "its examples", ORANGE, "--"),
    ("query_nontransductive_accuracy", "new drawings", BLUE, "-"),
)
VIEW = {"viewport": {"width": 1208, "height": 1400}, "color_scheme": "light"}
SCALE = 1.5  # pixels of the still for one of the page
DPI = 96 * SCALE * 1.1  # makes the figure's letters as large as the page's
MANY_STEPS = 21  # for a dot at each
# Hides what would look in at the edges of the pictures, and keeps the height of the answer from jumping.
KEEP_STILL = """() => {
    for (const each of document.querySelectorAll("#draw > .checkpoint, .explanation")) each.style.visibility = "hidden";
    const answer = document.querySelector("#draw .answer");
    answer.style.minHeight = `${answer.offsetHeight}px`;
}"""
POINTS_A_FRAME = 3
DRAWING, ANSWER, STEP, END = 70, 900, 160, 2500  # milliseconds that a frame is shown

Frame = tuple[Image.Image, int]  # and its milliseconds


class Camera:
    """Takes pictures of a part of the page."""

    def __init__(self, page: Any, first: str, last: str, margin: int = 14) -> None:
        """From the top of one element to the bottom of another, as wide as the latter."""
        top, bottom = (page.locator(each).bounding_box() for each in (first, last))
        height = bottom["y"] + bottom["height"] - top["y"]
        self._page = page
        self._clip = {
            "x": bottom["x"] - margin, "y": top["y"] - margin,
            "width": bottom["width"] + 2 * margin, "height": height + 2 * margin,
        }  # fmt: skip

    def __call__(self) -> Image.Image:
        """A picture of it now."""
        return Image.open(io.BytesIO(self._page.screenshot(clip=self._clip))).convert("RGB")


def drawings(data: Path) -> tuple[list[Drawing], Drawing]:
    """The examples of the classes, and what is to be classified."""
    files = {name: sorted((data / STROKES / name / folder).glob("*.txt")) for name, folder in CHARACTERS.items()}
    examples = [read_drawing(files[name][drawer]) for name, drawer in zip(CHARACTERS, EXAMPLES, strict=True)]
    return examples, read_drawing(files[QUERY[0]][QUERY[1]])


def name_classes(page: Any) -> None:
    """Give the classes the names of the alphabets."""
    for place, name in enumerate(CHARACTERS):
        field = page.get_by_test_id("class-name").nth(place)
        field.fill(name)
        field.press("Enter")


def animate(page: Any, data: Path) -> Iterator[Frame]:
    """Three examples, a fourth drawing with an answer after each stroke, and then the inner steps."""
    examples, query = drawings(data)
    canvases = page.get_by_test_id("class-canvas")
    name_classes(page)
    draw_all = [(canvases.nth(place), example) for place, example in enumerate(examples)]
    for canvas, drawing in [*draw_all, (page.locator("#query-canvas"), query)]:
        draw(page, canvas, drawing)  # once, so that the answer has its height
    wait_for_answer(page, len(query))
    page.evaluate(KEEP_STILL)
    camera = Camera(page, "#draw .columns", "#draw .answer")
    page.locator("#clear-all").click()
    yield camera(), 600
    for canvas, drawing in draw_all:
        for stroke in drawing:
            for place, _ in enumerate(draw_stroke(page, canvas, stroke)):
                if place % POINTS_A_FRAME == 0:
                    yield camera(), DRAWING
    yield camera(), 500
    for count, stroke in enumerate(query, 1):
        for place, _ in enumerate(draw_stroke(page, page.locator("#query-canvas"), stroke)):
            if place % POINTS_A_FRAME == 0:
                yield camera(), DRAWING
        wait_for_answer(page, count)
        yield camera(), ANSWER
    slider = page.locator("#draw-steps input")
    last = int(slider.get_attribute("max"))
    for step in range(last + 1):
        slider.fill(str(step))
        yield camera(), 700 if step == 0 else END if step == last else STEP


def save_animation(frames: list[Frame], file: Path) -> None:
    """Write a WebP that is repeated for ever."""
    pictures, durations = zip(*frames, strict=True)
    pictures[0].save(
        file, save_all=True, append_images=pictures[1:], duration=list(durations), loop=0, quality=80, method=4,
        minimize_size=True,
    )  # fmt: skip


def photograph(page: Any, data: Path) -> Image.Image:
    """The page with all four drawings and the answer."""
    examples, query = drawings(data)
    name_classes(page)
    for place, example in enumerate(examples):
        draw(page, page.get_by_test_id("class-canvas").nth(place), example)
    draw(page, page.locator("#query-canvas"), query)
    wait_for_answer(page, len(query))
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.mouse.move(0, 0)
    return Camera(page, ".top", "#draw .answer")()


def accuracies(checkpoint: str, data: Path, tasks: int) -> dict[str, Interval]:
    """Accuracy on tasks of test characters, by who is classified, before and after each inner step."""
    about = describe_checkpoint(pretrained()[checkpoint])
    episodes = OmniglotEpisodes(**about["data_settings"] | {"root": str(data), "test_tasks": tasks})
    learner = load_learner(checkpoint)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, inference_mode=False
    )
    trainer.test(learner, episodes, verbose=False)
    intervals: dict[str, Interval] = learner.scores.intervals
    return intervals


def adaptation_card(checkpoint: str, data: Path, tasks: int, size: tuple[int, int]) -> Image.Image:
    """A card in the style of the page: accuracy on unseen tasks against inner steps, with 95% intervals."""
    about, intervals = describe_checkpoint(pretrained()[checkpoint]), accuracies(checkpoint, data, tasks)
    width, height = (side / DPI for side in size)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=GROUND)
    card = FancyBboxPatch(
        (0, 14 * SCALE), size[0] - 14 * SCALE, size[1] - 28 * SCALE, transform=None, facecolor="white", edgecolor=LINE,
        boxstyle=f"round,pad=0,rounding_size={14 * SCALE}", linewidth=0.8, zorder=-1,
    )  # fmt: skip
    figure.add_artist(card)
    ways, examples = about["ways"], "one example" if about["shots"] == 1 else f"{about['shots']} examples"
    figure.text(0.07, 0.935, "A few steps, on average", size=15, weight="bold", color=INK)
    text = (
        f"{tasks} tasks of {ways} characters that it has never seen,\n"
        f"{examples} of each. Bands: 95% intervals of the mean."
    )
    figure.text(0.07, 0.915, text, size=9.5, color=QUIET, va="top", linespacing=1.5)
    axes = figure.add_axes((0.135, 0.105, 0.78, 0.71))
    for part, label, colour, style in CURVES:
        interval = intervals[part]
        mean, half_width = 100 * interval.mean, 100 * interval.half_width
        steps = interval.steps
        axes.fill_between(steps, mean - half_width, (mean + half_width).clamp(max=100), color=colour, alpha=0.2, lw=0)
        marker = "o" if len(mean) <= MANY_STEPS else None
        axes.plot(steps, mean, style, color=colour, lw=2, marker=marker, markersize=4.5, clip_on=False, zorder=3)
        print(f"{checkpoint}, {label}: {' '.join(f'{value:.2f}' for value in mean)} %, last ± {half_width[-1]:.2f}")
    chance = 100 / ways
    axes.axhline(chance, color=QUIET, lw=0.9, ls=(0, (2, 3)))
    axes.text(steps[-1], chance - 1.5, f"a guess: {chance:.0f}%", size=9.5, color=QUIET, ha="right", va="top")
    axes.text(steps[-1], mean[-1] - 5, f"new drawings: {mean[-1]:.1f} ± {half_width[-1]:.1f}%", size=11,
              weight="bold", color=BLUE, ha="right", va="top")  # fmt: skip
    axes.text(steps[-1], 102, "its examples", size=9.5, color=ORANGE, ha="right", va="bottom")
    axes.set(xlim=(0, steps[-1]), ylim=(0, 100), xlabel="gradient steps", yticks=range(0, 101, 25))
    axes.yaxis.set_major_formatter("{x:.0f}%")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.label.set(color=QUIET, size=10)
    axes.tick_params(colors=QUIET, labelsize=9.5, length=0, pad=7)
    axes.grid(axis="y", color=LINE, lw=0.8)
    axes.spines[:].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI)
    return Image.open(file).convert("RGB")


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Both, of one height."""
    both = Image.new("RGB", (left.width + right.width, left.height), GROUND)
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def main() -> None:
    """Read the command line, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds omniglot-py")
    parser.add_argument("--checkpoint", default=default_checkpoint(), choices=sorted(pretrained()))
    parser.add_argument("--tasks", type=int, default=600)
    options = parser.parse_args()
    with chromium() as browser, served(options.checkpoint) as address:
        with opened(browser, address, **VIEW) as page:
            frames = list(animate(page, options.data))
        with opened(browser, address, **VIEW, device_scale_factor=SCALE) as page:
            photo = photograph(page, options.data)
    save_animation(frames, FOLDER / "demo.webp")
    card = adaptation_card(options.checkpoint, options.data, options.tasks, (round(0.62 * photo.width), photo.height))
    side_by_side(photo, card).quantize(128, dither=Image.Dither.NONE).save(FOLDER / "demo.png", optimize=True)


if __name__ == "__main__":
    main()
