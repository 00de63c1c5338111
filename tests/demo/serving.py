"""A server of small learners for the tests, in a thread of its own."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from torch.nn import functional

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner

CORNER = [[[0.2, 0.2], [0.2, 0.8], [0.8, 0.8]]]
CROSS = [[[0.2, 0.2], [0.8, 0.8]], [[0.8, 0.2], [0.2, 0.8]]]
DASH = [[[0.2, 0.5], [0.8, 0.5]]]


def symbols(steps: int = 3, ways: int = 3) -> MetaLearner:
    """An untrained learner of small dark drawings on white."""
    torch.manual_seed(0)
    network = Conv4(ways, filters=8)
    learner = MAML(network, InnerLoop(SGD(lr=0.1), steps=1, evaluation_steps=steps)).eval()
    preprocessing = Preprocessing(side=28, channels=1, resample="lanczos", background=1.0, invert=True)
    learner.trained_on = {"ways": ways, "shots": 1, "rows": ways, "preprocessing": preprocessing.plain()}
    return learner


def curves(rate: float = 0.01) -> MetaLearner:
    """An untrained learner of curves."""
    torch.manual_seed(0)
    inner = InnerLoop(SGD(lr=rate), steps=1, evaluation_steps=2)
    learner = MAML(MLP(1), inner, loss=functional.mse_loss).eval()
    learner.trained_on = {"ways": 1, "shots": 5, "rows": 5, "preprocessing": None}
    return learner


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of a server that runs within."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def drawn(strokes: Any) -> dict[str, Any]:
    return {"strokes": strokes}


def request(*queries: Any, **changes: Any) -> dict[str, Any]:
    """A corner, a cross and a dash, and what is to be classified among them."""
    drawings = {"corner": CORNER, "cross": CROSS, "dash": DASH}
    classes = [{"name": name, "pictures": [drawn(strokes)]} for name, strokes in drawings.items()]
    return {"checkpoint": "symbols", "classes": classes, "queries": list(queries)} | changes


def picture_file(paper: int = 255, ink: int = 0, kind: str = "PNG") -> str:
    """A dash as a file in base64."""
    pixels = np.full((60, 60), paper, np.uint8)
    pixels[28:33, 10:50] = ink
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return base64.b64encode(content.getvalue()).decode()


def refusal(response: httpx.Response, status: int) -> str:
    """The message of a refusal, which has one line and shows nothing of the server."""
    assert response.status_code == status, response.text
    (key, message), *others = response.json().items()
    assert key == "error"
    assert not others
    assert "\n" not in message
    assert not any(word in message for word in ("Traceback", "/", ".py", "Error"))
    return str(message)
