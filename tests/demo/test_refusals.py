"""What the page's server refuses, without harm: the fixture `page` asks it something right after every test."""

import base64
import contextlib
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lightning_meta.demo import guard, server
from lightning_meta.demo.server import create_app
from tests.demo.serving import DASH, curves, drawn, picture_file, refusal, request, serving, symbols


def changed(**changes: Any) -> str:
    return json.dumps(request(drawn(DASH), **changes))


def queried(picture: Any) -> str:
    return changed(queries=[picture])


def file(content: bytes) -> str:
    return queried({"file": base64.b64encode(content).decode()})


def bomb(side: int) -> bytes:
    """A PNG file of few bytes that claims so many pixels."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


DAMAGED = base64.b64decode(picture_file())[:60]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 422, "field required"),
        ("strokes", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ("[]", 422, "dictionary"),
        ("{}", 422, "checkpoint: field required"),
        (changed(checkpoint=3), 422, "checkpoint: input should be a valid string"),
        (changed(checkpoint="symbol"), 404, "There is no checkpoint symbol: did you mean symbols?"),
        (changed(checkpoint="zzz"), 404, "there are symbols, sinusoid_maml"),
        (changed(checkpoint="sinusoid_maml"), 422, "sinusoid_maml is for points of a curve"),
        (changed(trust=True), 422, "trust: extra inputs"),
        (changed(classes=[]), 422, "classes: list should have at least 2 items"),
        (changed(classes=[{"name": "a", "pictures": []}] * 2), 422, "classes[0].pictures: list should have at least 1"),
        (changed(classes=[{"name": "a", "pictures": [drawn(DASH)]}] * 21), 422, "at most 20 items"),
        (changed(classes=[{"name": "a", "pictures": [drawn(DASH)] * 51}] * 2), 422, "102 pictures in all classes"),
        (changed(queries=[drawn(DASH)] * 101), 422, "queries: list should have at most 100 items"),
        (queried({}), 422, "queries[0]: expected either strokes or a file"),
        (queried(drawn(DASH) | {"file": picture_file()}), 422, "expected either strokes or a file"),
        (queried(drawn([])), 422, "queries[0].strokes: list should have at least 1 item"),
        (queried(drawn([[]])), 422, "queries[0].strokes[0]: list should have at least 1 item"),
        (queried(drawn([[[0.5, 0.5]]] * 10_000)), 422, "strokes: list should have at most 200 items"),
        (queried(drawn([[[0.5, 0.5]] * 5001])), 422, "strokes[0]: list should have at most 5000 items"),
        (queried(drawn([[[0.5, 0.5]] * 3000] * 2)), 422, "6000 points, expected at most 5000"),
        (queried(drawn([[[0.5, float("nan")]]])), 422, "queries[0].strokes[0][0][1]: input should be a finite number"),
        (queried(drawn([[[0.5, float("inf")]]])), 422, "finite number"),
        (queried(drawn([[[0.5, -1e300]]])), 422, "greater than or equal to -1"),
        (queried(drawn([[[0.5, "0.5"]]])), 422, "valid number"),
        (queried(drawn([[[0.5]]])), 422, "field required"),
        (queried({"file": "not base64!"}), 422, "queries[0].file"),
        (file(b"name,age\nann,30\n"), 422, "picture 1 to classify is not a picture"),
        (file(POSTSCRIPT), 422, "picture 1 to classify is not a picture"),
        (file(DAMAGED), 422, "picture 1 to classify is not a"),
        (file(bomb(6_000)), 422, "picture 1 to classify has more than 25,000,000 pixels"),
        (file(bomb(12_000)), 422, "picture 1 to classify has more than"),
        (file(bomb(32_000)), 422, "picture 1 to classify has more than"),
    ],
)
def test_wrong_requests_to_classify(page: httpx.Client, body: str | bytes, status: int, said: str) -> None:
    response = page.post("/api/classify", content=body, headers={"content-type": "application/json"})
    assert said in refusal(response, status)


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"points": []}, 422, "points: list should have at least 1 item"),
        ({"points": [[0, 0]] * 101}, 422, "at most 100 items"),
        ({"points": [[9, 0]]}, 422, "points[0][0]: input should be less than or equal to 5"),
        ({"points": [[0, float("nan")]]}, 422, "points[0][1]: input should be a finite number"),
        ({"checkpoint": "symbols"}, 422, "symbols is for pictures"),
        ({"checkpoint": "sinusoid"}, 404, "did you mean sinusoid_"),
    ],
)
def test_wrong_requests_to_fit(page: httpx.Client, changes: dict[str, Any], status: int, said: str) -> None:
    body = json.dumps({"checkpoint": "sinusoid_maml", "points": [[0, 0]]} | changes)
    response = page.post("/api/fit", content=body, headers={"content-type": "application/json"})
    assert said in refusal(response, status)


def test_an_adaptation_that_diverges_is_said() -> None:
    app = create_app({"sinusoid_maml": curves(rate=1e30)})
    with serving(app) as address:
        response = httpx.post(f"{address}/api/fit", json={"checkpoint": "sinusoid_maml", "points": [[1, 5], [2, -5]]})
    assert "diverged" in refusal(response, 422)


def test_a_body_of_another_type(page: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        response = page.post("/api/classify", content=changed(), headers={"content-type": kind})
        assert "application" in response.json()["error"]
        assert response.status_code == 415
    with_charset = {"content-type": "application/json; charset=utf-8"}
    assert page.post("/api/classify", content=changed(), headers=with_charset).status_code == 200


def test_a_body_that_is_too_large_is_not_read_to_its_end(page: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_BODY", 2**20)
    sent = []

    def endless() -> Iterator[bytes]:
        for piece in range(10_000):
            sent.append(piece)
            yield b" " * 2**16

    headers = {"content-type": "application/json"}
    with contextlib.suppress(httpx.WriteError):  # 625 MB: the server has answered, and closes
        refusal(page.post("/api/classify", content=endless(), headers=headers), 413)
    assert len(sent) < 1000
    for content in (b" " * (2**20 + 1), iter([b" " * 2**19] * 3)):  # announced and not
        assert "More than 1 MB" in refusal(page.post("/api/classify", content=content, headers=headers), 413)


def test_a_body_that_does_not_arrive(address: str, page: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    answer = raw(address, b"POST /api/fit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                          b"Content-Length: 10\r\n\r\n{")  # fmt: skip
    assert answer.startswith(b"HTTP/1.1 408 ")


def raw(address: str, request: bytes) -> bytes:
    """What the server answers to these bytes."""
    url = httpx.URL(address)
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/%2e%2e%2fserver.py", "/..\\server.py",
        "/..%5cserver.py", "//etc/passwd", "/%2fetc%2fpasswd", "/engine/../../server.py", "/static/../../../errors.py",
        "/server.py", "/%00", "/index.html%00.js", "/docs", "/redoc", "/openapi.json", "/api", "/api/classify/",
        "/.", "/..", "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_file_outside_the_page_is_read(address: str, path: str, page: httpx.Client) -> None:
    answer = raw(address, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert b"\nimport " not in answer
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    if path not in ("/.", "/.."):
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
        assert b'{"error":' in answer


@pytest.mark.parametrize(
    "origin", ["http://elsewhere.example", "null", "http://127.0.0.1", "https://127.0.0.1:1", "x://["]
)
def test_a_page_of_another_site_is_refused(page: httpx.Client, origin: str) -> None:
    for send in (page.post("/api/classify", json=request(), headers={"origin": origin}),
                 page.get("/api/checkpoints", headers={"origin": origin})):  # fmt: skip
        assert "another site" in refusal(send, 403)
        assert not any(name.startswith("access-control") for name in send.headers)


def test_a_page_of_this_server_is_not_refused(page: httpx.Client, address: str) -> None:
    assert page.post("/api/classify", json=request(), headers={"origin": address}).status_code == 200
    preflight = page.options("/api/classify", headers={"access-control-request-method": "POST"})
    assert preflight.status_code == 405
    assert not any(name.startswith("access-control") for name in preflight.headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200), ("192.168.1.2", 200),
        ("elsewhere.example", 403), ("localhost.elsewhere.example", 403), ("127.0.0.1.elsewhere.example:8000", 403),
        ("127.0.0.1@elsewhere.example", 403), ("", 403), ("[::1", 403),
    ],
)  # fmt: skip
def test_a_name_that_leads_here_from_elsewhere_is_refused(page: httpx.Client, host: str, status: int) -> None:
    """A page of elsewhere.example may have its own name lead to 127.0.0.1 (DNS rebinding); numbers have no owner."""
    assert page.get("/api/checkpoints", headers={"host": host}).status_code == status


def test_the_name_that_the_server_was_given_is_its_own() -> None:
    with serving(create_app({"symbols": symbols()}, host="Demo.example")) as address:
        for host, status in (("demo.example:80", 200), ("localhost", 200), ("other.example", 403)):
            assert httpx.get(f"{address}/api/checkpoints", headers={"host": host}).status_code == status


def test_browsers_are_told_to_keep_others_out(page: httpx.Client) -> None:
    answered = [
        page.get("/"), page.get("/app.js"), page.get("/api/checkpoints"), page.get("/nothing"),
        page.post("/api/classify", json={}), page.get("/", headers={"host": "elsewhere.example"}),
        page.post("/api/fit", content=b"", headers={"content-type": "text/plain"}),
    ]  # fmt: skip
    for response in answered:
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_an_unexpected_error_stays_at_the_servers_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learner = symbols()

    def fail(*given: Any, **how: Any) -> None:
        raise RuntimeError("a secret of /home/ann")

    monkeypatch.setattr(learner, "adapt_to", fail)
    with serving(create_app({"symbols": learner})) as address:
        for _ in range(2):
            response = httpx.post(f"{address}/api/classify", json=request())
            assert "terminal says why" in refusal(response, 500)
            assert response.headers["x-content-type-options"] == "nosniff"
    assert "a secret of" in caplog.text


def test_too_many_at_once_are_told_to_wait(page: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as change:
        change.setattr(server, "MAX_WAITING", 0)
        assert "try again" in refusal(page.post("/api/classify", json=request()), 503)
