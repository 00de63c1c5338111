"""What the page's server answers over HTTP."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch

from lightning_meta.demo.descriptions import preprocessing_of
from lightning_meta.demo.drawing import draw_like_omniglot
from lightning_meta.demo.server import create_app
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner
from tests.demo.serving import CORNER, CROSS, DASH, drawn, picture_file, request, serving, symbols


def test_the_page_and_its_checkpoints(page: httpx.Client) -> None:
    index = page.get("/")
    assert index.headers["content-type"].startswith("text/html")
    assert '<meta name="engine" content="server" />' in index.text
    script = page.get("/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    found = page.get("/api/checkpoints").json()
    assert [(each["name"], each["kind"], each["steps"]) for each in found] == [
        ("symbols", "pictures", 3),
        ("sinusoid_maml", "curve", 2),
        ("sinusoid_joint", "curve", 2),
    ]
    assert found[0] == {
        "name": "symbols", "kind": "pictures", "title": "Symbols", "method": "MAML", "ways": 3, "shots": 1, "steps": 3,
        "side": 28, "channels": 1, "accuracy": "96.4 ± 0.2 %",
    }  # fmt: skip


def test_probabilities_after_every_step_are_the_learners_own(
    page: httpx.Client, checkpoints: dict[str, MetaLearner]
) -> None:
    answer = page.post("/api/classify", json=request(drawn(CROSS), drawn(DASH))).json()
    assert answer["notes"] == []
    learner = checkpoints["symbols"]
    preprocessing = preprocessing_of(learner)
    assert preprocessing is not None
    pictures = [draw_like_omniglot(strokes) for strokes in (CORNER, CROSS, DASH)]
    x = preprocessing.inputs(torch.stack([torch.from_numpy(preprocessing.pixels(picture)) for picture in pictures]))
    adapted = learner.adapt_to(x, ["a", "b", "c"], every_step=True)
    expected = adapted.steps(x[1:]).softmax(-1).detach().numpy()
    found = np.array([step["probabilities"] for step in answer["steps"]])
    assert found.shape == (4, 2, 3)
    assert found == pytest.approx(expected, abs=2e-6)
    assert found.sum(-1) == pytest.approx(1, abs=1e-5)
    right = (adapted.support_steps().argmax(-1) == torch.arange(3)).double().mean(-1).tolist()
    assert [step["support_accuracy"] for step in answer["steps"]] == pytest.approx(right, abs=1e-6)
    assert right[0] < right[-1] == 1
    assert found[-1].argmax(-1).tolist() == [1, 2]


def test_columns_stand_in_the_order_of_the_request(page: httpx.Client) -> None:
    drawings = [CORNER, CROSS, DASH]
    for order in ([0, 1, 2], [2, 0, 1]):
        classes = [{"name": "", "pictures": [drawn(drawings[place])]} for place in order]
        answer = page.post("/api/classify", json=request(drawn(CORNER), classes=classes)).json()
        assert np.argmax(answer["steps"][-1]["probabilities"][0]) == order.index(0)


def test_many_queries_are_answered_in_pieces_as_at_once(page: httpx.Client) -> None:
    queries = [drawn(strokes) for strokes in (CORNER, CROSS, DASH)] * 7
    steps = page.post("/api/classify", json=request(*queries)).json()["steps"]
    for step in steps:
        assert np.array(step["probabilities"]).shape == (21, 3)
        assert np.array(step["probabilities"][18:]) == pytest.approx(np.array(step["probabilities"][:3]), abs=1e-5)
    assert page.post("/api/classify", json=request()).json()["steps"][0]["probabilities"] == []


def test_a_file_that_is_light_on_dark_is_turned_round_and_said(page: httpx.Client) -> None:
    dark, light = ({"file": picture_file(*colours)} for colours in ((255, 0), (0, 255)))
    answer = page.post("/api/classify", json=request(dark, light)).json()
    first, second = answer["steps"][-1]["probabilities"]
    assert first == second
    assert len(answer["notes"]) == 1
    assert answer["notes"][0].startswith("1 of 5 pictures")


def test_more_classes_than_the_checkpoint_has_outputs_are_said(page: httpx.Client) -> None:
    classes = [{"name": str(place), "pictures": [drawn([[[0, 0], [1, place / 4]]])]} for place in range(4)]
    answer = page.post("/api/classify", json=request(drawn(DASH), classes=classes)).json()
    assert len(answer["steps"][-1]["probabilities"][0]) == 4
    assert "more classes" in answer["notes"][0]


def test_curves_after_every_step_beside_the_joint_network(
    page: httpx.Client, checkpoints: dict[str, MetaLearner]
) -> None:
    points = [[-1.0, 2.0], [0.5, -1.0], [3, 1]]
    answer = page.post("/api/fit", json={"checkpoint": "sinusoid_maml", "points": points}).json()
    x = torch.linspace(-5, 5, 101)[:, None]
    assert answer["x"] == pytest.approx(x[:, 0].tolist(), abs=1e-6)
    given = torch.tensor(points)
    for key, name in (("steps", "sinusoid_maml"), ("joint", "sinusoid_joint")):
        adapted = checkpoints[name].adapt_to(given[:, :1], given[:, 1:], together=True, every_step=True)
        assert np.array(answer[key]) == pytest.approx(adapted.steps(x)[..., 0].detach().numpy(), abs=1e-5)
    assert len(answer["steps"]) == 3


def test_the_same_examples_are_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, learned = symbols(), []
    adapt_to = learner.adapt_to
    monkeypatch.setattr(learner, "adapt_to", lambda *given, **how: learned.append(given) or adapt_to(*given, **how))
    with serving(create_app({"symbols": learner})) as address, httpx.Client(base_url=address) as client:
        for strokes in (DASH, CROSS, CORNER):
            assert client.post("/api/classify", json=request(drawn(strokes))).status_code == 200
        assert len(learned) == 1
        other = request(drawn(DASH))
        other["classes"][0]["pictures"].append(drawn(CORNER))
        assert client.post("/api/classify", json=other).status_code == 200
    assert len(learned) == 2


def test_fifty_clients_at_once(address: str) -> None:
    async def ask(client: httpx.AsyncClient, place: int) -> int:
        body = request(drawn([[[0, place / 50], [1, 1]]]))
        return (await client.post("/api/classify", json=body)).status_code

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            return await asyncio.gather(*(ask(client, place) for place in range(50)))

    with ThreadPoolExecutor(1) as thread:  # a browser of another test may have a loop in this one
        assert thread.submit(lambda: asyncio.run(ask_all())).result() == [200] * 50


def test_a_checkpoint_for_neither_pictures_nor_curves_is_refused() -> None:
    learner = symbols()
    learner.trained_on["preprocessing"] = None
    with pytest.raises(MetaLearningError, match="neither pictures nor points"):
        create_app({"symbols": learner})
