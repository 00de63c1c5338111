"""A browser on the page, with a server that answers in the form of the real one and keeps what it was asked."""

import functools
import http.server
import importlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "lightning_meta" / "demo" / "page"
STEPS = 10
CHECKPOINTS = [
    {"name": "omniglot_reptile_3w", "kind": "pictures", "title": "Omniglot 3-way 1-shot", "method": "Reptile",
     "ways": 3, "shots": 1, "steps": STEPS, "side": 28, "channels": 1, "accuracy": "95.2 ± 0.3 %"},
    {"name": "omniglot_maml_5w1s", "kind": "pictures", "title": "Omniglot 5-way 1-shot", "method": "MAML",
     "ways": 5, "shots": 1, "steps": STEPS, "side": 28, "channels": 1, "accuracy": "98.9 ± 0.1 %"},
    {"name": "sinusoid_maml", "kind": "curve", "title": "Sinusoid 10-shot", "method": "MAML",
     "ways": 1, "shots": 10, "steps": STEPS, "side": None, "channels": None, "accuracy": ""},
    {"name": "sinusoid_joint", "kind": "curve", "title": "Sinusoid, trained jointly", "method": "JointTraining",
     "ways": 1, "shots": 10, "steps": STEPS, "side": None, "channels": None, "accuracy": ""},
]  # fmt: skip


def likeness(picture: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same file, or as many strokes."""
    if "file" in picture:
        return picture["file"] == other["file"]
    return len(picture["strokes"]) == len(other["strokes"])


def classify(request: dict[str, Any]) -> dict[str, Any]:
    """From equal probabilities before the first step to .9 for the class that has a picture like the query."""
    classes = request["classes"]
    ways = len(classes)
    steps = []
    for step in range(STEPS + 1):
        rows = []
        for query in request["queries"]:
            like = [any(likeness(query, picture) for picture in each["pictures"]) for each in classes]
            winner = like.index(True) if True in like else 0
            sure = step / STEPS
            goal = [0.9 if index == winner else 0.1 / (ways - 1) for index in range(ways)]
            rows.append([sure * value + (1 - sure) / ways for value in goal])
        steps.append({"probabilities": rows, "support_accuracy": max(1 / ways, step / STEPS)})
    return {"steps": steps, "notes": ["All drawings were thinned to the pen of Omniglot."]}


def fit(request: dict[str, Any]) -> dict[str, Any]:
    """One network goes from 0 to the mean of the points, the other stays at 0."""
    goal = sum(y for _, y in request["points"]) / len(request["points"])
    x = [-5 + 0.5 * index for index in range(21)]
    flat = [[goal * step / STEPS] * len(x) for step in range(STEPS + 1)]
    return {"x": x, "steps": flat, "joint": [[0.0] * len(x)] * (STEPS + 1)}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the page, and the three calls of the engine."""

    server: "Server"

    def do_GET(self):
        if self.path == "/api/checkpoints":
            self.answer(CHECKPOINTS)
        else:
            super().do_GET()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, request))
        self.answer({"/api/classify": classify, "/api/fit": fit}[self.path](request))

    def answer(self, value: Any) -> None:
        status, body = self.server.failure or (200, value)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Keeps the output of the tests clean."""


class Server(http.server.ThreadingHTTPServer):
    """Keeps the requests; `failure` (status, body) answers all of them while it is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(PAGE)))
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failure: tuple[int, dict[str, str]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the path")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    options += ["--disable-frame-rate-limit", "--disable-gpu-vsync"]  # a move of the mouse waits for the next frame
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium, args=[*options, "--disable-sync", "--no-first-run"]
        )
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, opened; a test in which the browser reports an error fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.complaints = complaints
    opened.goto(server.url)
    opened.locator("#draw-checkpoint:enabled").wait_for()
    yield opened
    context.close()
    assert not complaints


@pytest.fixture(scope="session")
def study() -> ModuleType:
    """What opens the page of shipped checkpoints and draws real characters on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks" / "studies"))
        return importlib.import_module("demo_trials")
