"""A server of small learners, and a client of it."""

from collections.abc import Iterator

import httpx
import pytest

from lightning_meta.demo.server import create_app
from lightning_meta.learner import MetaLearner
from tests.demo.serving import DASH, curves, drawn, request, serving, symbols


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, MetaLearner]:
    return {"symbols": symbols(), "sinusoid_maml": curves(), "sinusoid_joint": curves(rate=0.02)}


@pytest.fixture(scope="module")
def address(checkpoints: dict[str, MetaLearner]) -> Iterator[str]:
    results = {"kind": "accuracy", "together": [0.99, 0.001], "alone": [0.9643, 0.0023]}
    with serving(create_app(checkpoints, {"symbols": {"title": "Symbols", "results": results}})) as address:
        yield address


@pytest.fixture
def page(address: str) -> Iterator[httpx.Client]:
    """A client of the server, which still answers afterwards."""
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client
        assert client.post("/api/classify", json=request(drawn(DASH))).status_code == 200
