"""The static page: what it holds, and that its engine answers as Python does, without a server of ours."""

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.demo import static
from lightning_meta.demo.static import write_static
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from tests.demo.engine import ENGINE, run, save

STEPS = 3
PREPROCESSING = Preprocessing(side=12, channels=1, resample="lanczos", background=1.0, invert=True)
CONV: dict[str, Any] = {"outputs": 3, "filters": 4, "image_size": 12}
MLPS: dict[str, Any] = {"outputs": 1, "hidden": [8], "activation": "torch.nn.Tanh"}
POINTS = [[-2.0, 1.0], [0.5, -1.0], [3.0, 2.0]]


def stroke(*points: tuple[float, float]) -> dict[str, Any]:
    return {"strokes": [[list(point) for point in points]]}


BAR, CORNER, HOOK = (stroke((0.5, 0.1), (0.5, 0.9)), stroke((0.2, 0.2), (0.2, 0.8), (0.8, 0.8)),
                     stroke((0.2, 0.8), (0.2, 0.2), (0.8, 0.2), (0.7, 0.6)))  # fmt: skip
CLASSES = [{"name": "a", "pictures": [BAR]}, {"name": "b", "pictures": [CORNER, HOOK]}]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def learners() -> dict[str, MetaLearner]:
    torch.manual_seed(0)
    loop = InnerLoop(SGD(0.2), evaluation_steps=STEPS, reduction="sum")
    curves = {
        name: MAML(MLP(1, 1, (8,), nn.Tanh), loop, loss=functional.mse_loss) for name in ("curve", "sinusoid_joint")
    }
    return {"omniglot": MAML(Conv4(**CONV), loop), **curves}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def page(learners: dict[str, MetaLearner], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `write_static` makes it."""
    made = tmp_path_factory.mktemp("made")
    paths = {
        name: save(learner, made / f"{name}.safetensors", CONV if name == "omniglot" else MLPS,
                   preprocessing=PREPROCESSING.plain() if name == "omniglot" else None)
        for name, learner in learners.items()
    }  # fmt: skip
    folder = made / "page"
    write_static(folder, paths, [{"name": name, "title": "≥ one"} for name in paths])
    return folder


@pytest.fixture(scope="module")
def base(page: Path) -> Iterator[str]:
    """Address of its checkpoints."""
    handler = functools.partial(Quiet, directory=str(page))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/checkpoints/"
        server.shutdown()


def inputs(*pictures: dict[str, Any]) -> Tensor:
    drawn = [np.array(run(do="draw", strokes=picture["strokes"]), np.uint8).reshape(105, 105) for picture in pictures]
    pixels = [PREPROCESSING.pixels(Image.fromarray(picture)) for picture in drawn]
    return PREPROCESSING.inputs(torch.from_numpy(np.stack(pixels)))


def question(*queries: dict[str, Any], classes: Any = CLASSES, checkpoint: str = "omniglot") -> list[Any]:
    return ["classify", {"checkpoint": checkpoint, "classes": classes, "queries": list(queries)}]


def test_drawings_are_classified_as_in_python(learners: dict[str, MetaLearner], page: Path, base: str) -> None:
    learner, labels = learners["omniglot"], torch.tensor([0, 1, 1])
    support, queries = inputs(BAR, CORNER, HOOK), inputs(HOOK, BAR)
    order = torch.arange(3).expand(STEPS, -1)
    task = Episode(support, labels, queries, labels[:2], order, torch.tensor(0), torch.arange(2))
    predictions = learner.predictions(learner.meta_parameters(), task, {})
    other = [CLASSES[1], CLASSES[0]]
    asked = [question(HOOK, BAR), question(BAR), question(HOOK, BAR, classes=other)]
    first, again, swapped = run(page / "engine", do="ask", base=base, requests=asked)
    for found in (first, again, swapped):
        assert found["notes"] == []
        assert len(found["steps"]) == STEPS + 1
    probabilities = torch.tensor([step["probabilities"] for step in first["steps"]])
    torch.testing.assert_close(probabilities, predictions[2][..., :2].softmax(-1), atol=1e-5, rtol=0)
    right = (predictions.support[..., :2].argmax(-1) == labels).float().mean(-1)
    assert [step["support_accuracy"] for step in first["steps"]] == pytest.approx(right.tolist())
    # An adaptation that is kept is that of these classes, and no other.
    assert [step["probabilities"][0] for step in again["steps"]] == [
        step["probabilities"][1] for step in first["steps"]
    ]
    assert swapped["steps"] != first["steps"]


def test_curves_are_fitted_beside_that_of_the_jointly_trained_network(
    learners: dict[str, MetaLearner], base: str
) -> None:
    (found,) = run(do="ask", base=base, requests=[["fit", {"checkpoint": "curve", "points": POINTS}]])
    x, y = torch.tensor(POINTS).T[..., None]
    grid = torch.linspace(-5, 5, 101)[:, None]
    assert found["x"] == pytest.approx(grid[:, 0].tolist(), abs=1e-6)
    for name, key in (("curve", "steps"), ("sinusoid_joint", "joint")):
        learner = learners[name]
        task = Episode(x, y, grid, grid, torch.arange(3).expand(STEPS, -1), torch.tensor(0), torch.arange(0))
        expected = learner.predictions(learner.meta_parameters(), task, {}).query[..., 0]
        torch.testing.assert_close(torch.tensor(found[key], dtype=torch.float32), expected, atol=1e-5, rtol=0)


MISTAKES = [
    (question(BAR, checkpoint="curve"), "curve adapts to curves: choose a checkpoint of pictures"),
    (question(BAR, checkpoint="none"), "none cannot be read .status 404"),
    (question(BAR, classes=[]), "no class"),
    (question(BAR, classes=[{"name": "a", "pictures": []}]), "a has no picture"),
    (question({"strokes": []}), "no strokes"),
    (["fit", {"checkpoint": "curve", "points": []}], "no point"),
    (["fit", {"checkpoint": "omniglot", "points": POINTS}], "omniglot adapts to pictures"),
    (["fit", {"checkpoint": "curve", "points": [[0, None]]}], "has no place"),
    (["fit", {"checkpoint": "curve", "points": [[1e200, 1e200]]}], "diverged on these examples"),
]


def test_what_cannot_be_answered_is_said(base: str) -> None:
    *refused, answer = run(do="ask", base=base, requests=[*(asked for asked, _ in MISTAKES), question(BAR)])
    for answered, (_, message) in zip(refused, MISTAKES, strict=True):
        assert re.search(message, answered["error"])
    assert "steps" in answer  # the engine goes on


def test_more_classes_than_the_checkpoint_has_are_noted(base: str) -> None:
    classes = [{"name": str(place), "pictures": [stroke((0, 0), (1, place / 4))]} for place in range(4)]
    (answer,) = run(do="ask", base=base, requests=[question(BAR, classes=classes)])
    (step,) = answer["steps"]
    assert len(step["probabilities"][0]) == 4
    assert step["support_accuracy"] == 1
    assert answer["notes"] == [
        "more classes than the checkpoint was trained for: compared with the mean features of each"
    ]


def test_a_request_that_nobody_waits_for_is_left_out(base: str) -> None:
    fit = ["fit", {"checkpoint": "curve", "points": POINTS}]
    answer = run(do="abort", base=base, requests=[question(BAR), fit])
    assert answer["errors"] == ["AbortError", None]
    assert sorted(answer["files"]) == ["curve.safetensors", "sinusoid_joint.safetensors"]


def test_the_folder_holds_page_engine_and_checkpoints(page: Path, base: str) -> None:
    (listed,) = run(do="ask", base=base, requests=[["checkpoints"]])
    assert [entry["title"] for entry in listed] == ["≥ one"] * 3
    names = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    engine = {f"engine/{path.name}" for path in ENGINE.iterdir()}
    checkpoints = {f"checkpoints/{name}.safetensors" for name in ("omniglot", "curve", "sinusoid_joint")}
    assert static.LOCAL.decode() in (page / "index.html").read_text(encoding="utf-8")
    assert engine | checkpoints | {"checkpoints/index.json", static.MANIFEST} <= names


@pytest.fixture
def small_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of two files in the place of the package's."""
    page = tmp_path / "package"
    page.mkdir()
    (page / "index.html").write_text('<meta name="engine" content="server">', encoding="utf-8")
    (page / "app.js").write_text("//", encoding="utf-8")
    monkeypatch.setattr(static, "PAGE", page)
    return page


def test_the_page_asks_its_own_engine(small_page: Path, tmp_path: Path) -> None:
    write_static(tmp_path / "out", {}, [])
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8") == '<meta name="engine" content="local">'
    assert json.loads((tmp_path / "out" / "checkpoints" / "index.json").read_text(encoding="utf-8")) == []


def test_a_folder_of_an_earlier_call_is_replaced_and_what_others_put_there_stays(
    small_page: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_static(out, {}, [])
    (out / "CNAME").write_text("example.org", encoding="utf-8")
    (small_page / "app.js").rename(small_page / "page.js")
    write_static(out, {}, [])
    assert {path.name for path in out.iterdir()} == {"CNAME", "checkpoints", "index.html", "page.js", static.MANIFEST}
    (small_page / "CNAME").touch()
    with pytest.raises(MetaLearningError, match="CNAME was not written by this command"):
        write_static(out, {}, [])
    assert (out / "CNAME").read_text(encoding="utf-8") == "example.org"


def test_a_folder_with_other_files_is_refused(small_page: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(MetaLearningError, match="expected a new or an empty folder"):
        write_static(tmp_path / "out", {}, [])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").touch()
    with pytest.raises(MetaLearningError, match="cannot be written"):
        write_static(tmp_path / "file", {}, [])
