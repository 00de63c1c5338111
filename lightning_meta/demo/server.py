"""The server of the page: its files, and what its checkpoints answer."""

import asyncio
import threading
import webbrowser
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from socket import socket
from typing import Any, TypeVar

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from lightning_meta.demo.answers import Answers
from lightning_meta.demo.guard import Guard, RefusedError
from lightning_meta.demo.requests import ClassifyRequest, FitRequest, explain
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner

QUERIES_AT_ONCE = 8  # classified before it is another client's turn
MAX_WAITING = 256  # requests

Answer = TypeVar("Answer")


class Turns:
    """One computation at a time, in the order in which they were asked for.

    The networks are so small that a second thread would wait for the interpreter more often than it would compute.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore()
        # PyTorch's own threads would cost more than they gain; their number is of the thread that sets it.
        self._thread = ThreadPoolExecutor(1, "lightning-meta-demo", torch.set_num_threads, (1,))
        self._waiting = 0

    async def take(self, request: Request, compute: Callable[..., Answer], *arguments: Any) -> Answer:
        """What ``compute`` returns, unless who asked has left by then.

        Raises:
            RefusedError: too many are waiting, or who asked has left.
        """
        if self._waiting >= MAX_WAITING:
            raise RefusedError(503, "Too many people are drawing at once: try again in a moment.")
        self._waiting += 1
        try:
            async with self._turn:
                if await request.is_disconnected():
                    raise RefusedError(499, "Nobody waits for this answer.")
                return await asyncio.get_running_loop().run_in_executor(self._thread, compute, *arguments)
        finally:
            self._waiting -= 1


def create_app(
    checkpoints: Mapping[str, MetaLearner],
    about: Mapping[str, Mapping[str, Any]] | None = None,
    host: str = "127.0.0.1",
) -> FastAPI:
    """The page and what it asks: ``GET /api/checkpoints``, ``POST /api/classify``, ``POST /api/fit``.

    Args:
        checkpoints: trained learners by the names that the page shows.
        about: what the file of each says of itself: ``title`` and ``results``.
        host: name that the server listens at.

    Raises:
        MetaLearningError: one of them takes neither pictures nor points of a curve.
    """
    answers, turns = Answers(checkpoints, about or {}), Turns()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # pages that load scripts from elsewhere
    app.add_middleware(Guard, host=host)

    @app.get("/api/checkpoints")
    async def describe() -> Response:
        return JSONResponse(answers.descriptions)

    @app.post("/api/classify")
    async def classify(asked: ClassifyRequest, request: Request) -> Response:
        task = await turns.take(request, answers.learn, asked.checkpoint, asked.classes)
        probabilities: list[list[Any]] = [[] for _ in task.support_accuracy]
        seen = []
        for first in range(0, len(asked.queries), QUERIES_AT_ONCE):
            queries = asked.queries[first : first + QUERIES_AT_ONCE]
            steps, pixels = await turns.take(request, answers.classify, asked.checkpoint, task, queries, first + 1)
            seen += pixels
            for known, step in zip(probabilities, steps, strict=True):
                known += step
        steps_ = [
            {"probabilities": step, "support_accuracy": accuracy}
            for step, accuracy in zip(probabilities, task.support_accuracy, strict=True)
        ]
        return JSONResponse({"steps": steps_, "notes": answers.notes(task, seen)})

    @app.post("/api/fit")
    async def fit(asked: FitRequest, request: Request) -> Response:
        return JSONResponse(await turns.take(request, answers.fit, asked))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return RefusedError(*explain(error.errors())).response()

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return error.response()

    @app.exception_handler(MetaLearningError)
    async def mistaken(request: Request, error: MetaLearningError) -> Response:
        return RefusedError(422, str(error)).response()

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        messages = {
            400: "The body is not JSON.",
            404: "There is no such page.",
            405: "This page takes no such request.",
        }
        return RefusedError(error.status_code, messages.get(error.status_code, error.detail)).response()

    app.mount("/", StaticFiles(packages=[("lightning_meta.demo", "page")], html=True))
    return app


def serve(app: FastAPI, listener: socket, address: str, open_page: bool) -> None:
    """Serve until Ctrl-C.

    Args:
        app: what `create_app` gave.
        listener: a socket that is bound.
        address: of the page.
        open_page: whether to show it in a browser.
    """
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=3, timeout_keep_alive=75,  # who draws pauses, and a closing connection loses a stroke
    )  # fmt: skip
    if open_page:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    uvicorn.Server(config).run(sockets=[listener])
