"""Real characters on the page of `lightning-meta demo`: is the bar of the right one the highest?

    python benchmarks/studies/demo_trials.py --data DATA

DATA holds ``omniglot-py/strokes_background_small1`` of https://github.com/brendenlake/omniglot: how people drew 136 of
the characters, point by point. In every trial a headless Chromium draws them again by mouse: three test characters of
the checkpoint's split in the canvases of the classes, and one of the three, as another person drew it, in the last one.
The same trials are made on the page that `lightning-meta demo` serves and on the one that it writes with ``--static``.
Prints how many were right, with the 95% interval of Wilson.
"""

import argparse
import functools
import http.server
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from lightning_meta.data.omniglot import read_splits
from lightning_meta.episode import Split
from lightning_meta.inference import pretrained
from lightning_meta.learner_file import describe_checkpoint

STROKES = Path("omniglot-py") / "strokes_background_small1"
SIDE = 105  # of Omniglot's canvas, in its unit
SPACING = 0.02  # of the canvas, between points that the mouse goes through
PREFERRED = ("omniglot_reptile_3w", "omniglot_maml_5w1s")
COMMAND = [sys.executable, "-m", "lightning_meta", "demo"]

Drawing = list[list[tuple[float, float]]]


class Trial(NamedTuple):
    """Three drawings of different characters, and a fourth one of the character ``answer``."""

    examples: list[Drawing]
    query: Drawing
    answer: int


def default_checkpoint() -> str:
    """The shipped checkpoint that the page shows first."""
    return next(name for name in PREFERRED if name in pretrained())


def read_drawing(file: Path) -> Drawing:
    """Strokes of points (x, y) in sides of the canvas, y downwards."""
    strokes: Drawing = []
    for stroke in file.read_text().removeprefix("START\n").split("BREAK\n"):
        kept: list[tuple[float, float]] = []
        for line in stroke.splitlines():
            x, y, _ = map(float, line.split(","))
            point = min(1.0, max(0.0, x / SIDE)), min(1.0, max(0.0, -y / SIDE))
            if not kept or math.dist(kept[-1], point) >= SPACING:
                kept.append(point)
        if kept:
            strokes.append(kept)
    return strokes


def split_of(checkpoint: str) -> dict[Split, list[str]]:
    """Characters by the part of the split that the checkpoint was trained with."""
    return read_splits(describe_checkpoint(pretrained()[checkpoint])["data_settings"]["split"])


def unseen_characters(data: Path, checkpoint: str) -> list[Path]:
    """Folders of the drawn characters among the test characters of the checkpoint's split."""
    names = (name.removeprefix("images_background/") for name in split_of(checkpoint)["test"])
    return sorted(folder for name in names if (folder := data / STROKES / name).is_dir())


def draw_trials(characters: list[Path], count: int, seed: int = 0) -> Iterator[Trial]:
    """Trials of three random characters; who drew the query drew no example."""
    generator = random.Random(seed)
    for _ in range(count):
        chosen = generator.sample(characters, 3)
        answer = generator.randrange(3)
        drawers = generator.sample(range(20), 4)
        files = [sorted(folder.glob("*.txt"))[drawer] for folder, drawer in zip(chosen, drawers, strict=False)]
        query = sorted(chosen[answer].glob("*.txt"))[drawers[3]]
        yield Trial([read_drawing(file) for file in files], read_drawing(query), answer)


@contextmanager
def served(*checkpoints: str) -> Iterator[str]:
    """The address of the page that the command serves."""
    command = [*COMMAND, "--no-open", "--port", "0", "--ckpt", *checkpoints]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, f"expected the address of the page, got {line!r}"
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args: Any) -> None:
        """Keep the output for the results."""


@contextmanager
def hosted(*checkpoints: str) -> Iterator[str]:
    """The address of the page that the command writes, offered by a server that knows nothing but files."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*COMMAND, "--static", folder, "--ckpt", *checkpoints], check=True, stdout=subprocess.DEVNULL)
        handler = functools.partial(QuietHandler, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """The page, ready to draw on; raises afterwards if the browser's console got an error."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, "reduced_motion": "reduce"} | options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.locator("#draw-checkpoint:enabled").wait_for()
    yield page
    context.close()
    assert not complaints, complaints


def draw_stroke(page: Any, canvas: Any, stroke: list[tuple[float, float]]) -> Iterator[None]:
    """Draw by mouse; stops after every point, so that pictures can be taken."""
    box = canvas.bounding_box()
    for place, (x, y) in enumerate(stroke):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if place == 0:
            page.mouse.down()
        yield
    page.mouse.up()


def draw(page: Any, canvas: Any, drawing: Drawing) -> None:
    """Draw all strokes by mouse."""
    canvas.scroll_into_view_if_needed()
    for stroke in drawing:
        for _ in draw_stroke(page, canvas, stroke):
            pass


def wait_for_answer(page: Any, strokes: int) -> list[float]:
    """Probabilities of the bars, when the page has answered about so many strokes of the query."""
    page.wait_for_function(
        "(strokes) => document.querySelector('#query-canvas').dataset.strokes === strokes"
        " && !document.querySelector('#draw').hasAttribute('aria-busy')",
        arg=str(strokes),
    )
    bars = page.locator("#draw-bars [data-testid=bar]")
    return bars.evaluate_all("(bars) => bars.map((bar) => Number.parseFloat(bar.dataset.probability))")


def run_trial(page: Any, trial: Trial) -> bool:
    """Draw all four, and say whether the highest bar is the right one."""
    page.locator("#clear-all").click()
    canvases = page.locator("[data-testid=class-card] canvas.paper")
    for place, example in enumerate(trial.examples):
        draw(page, canvases.nth(place), example)
    draw(page, page.locator("#query-canvas"), trial.query)
    probabilities = wait_for_answer(page, len(trial.query))
    assert len(probabilities) == len(trial.examples)
    return probabilities.index(max(probabilities)) == trial.answer


def main() -> None:
    """Read the command line, and print a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds omniglot-py")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--checkpoint", default=default_checkpoint(), choices=sorted(pretrained()))
    options = parser.parse_args()
    characters = unseen_characters(options.data, options.checkpoint)
    print(f"{options.checkpoint}, {options.trials} trials with {len(characters)} unseen characters")
    with chromium() as browser:
        for name, form in (("served", served), ("static", hosted)):
            with form(options.checkpoint) as address, opened(browser, address) as page:
                trials = draw_trials(characters, options.trials)
                right = sum(run_trial(page, trial) for trial in trials)
            low, high = binomtest(right, options.trials).proportion_ci(method="wilson")
            share = f"{right / options.trials:.1%} ({low:.1%} to {high:.1%})"
            print(f"{name}: {right} of {options.trials} right, {share}", flush=True)


if __name__ == "__main__":
    main()
