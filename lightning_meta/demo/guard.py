"""What stands between the network and the page's server: who may ask, how much, and what browsers are told."""

import asyncio
import logging
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 16 * 2**20  # bytes
MAX_DRAINED = 4  # times that much is read and dropped, since a browser shows no answer before it has sent its body
BODY_SECONDS = 30  # that a body may take to arrive
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: for the person at the page.
        close: whether the connection is to be closed.
    """

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.close = status, message, close

    def response(self) -> JSONResponse:
        """As the page expects an error."""
        return JSONResponse({"error": self.message}, self.status, {"Connection": "close"} if self.close else None)


class Guard:
    """ASGI middleware around the whole server.

    It refuses a request that was sent to another name than the server's, as a page of another site can bring about by
    DNS rebinding; one that a page of another site sent; and a body that is not JSON by its type, is larger than
    `MAX_BODY` or takes longer than `BODY_SECONDS`. It adds `SECURITY_HEADERS` to every answer, and what an unexpected
    error says goes to the server's terminal alone.

    Args:
        app: what is guarded.
        host: name that the server was told to listen at.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            self._check_sender(Headers(scope=scope))
            if scope["method"] == "POST":
                receive = await _with_body(Headers(scope=scope), receive)
            await self.app(scope, receive, send_guarded)
        except RefusedError as refused:
            await refused.response()(scope, receive, send_guarded)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                failed = RefusedError(500, "The server could not answer this; its terminal says why.")
                await failed.response()(scope, receive, send_guarded)

    def _check_sender(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_own(host):
            raise RefusedError(403, "This server does not answer to the name in the address: open it as it printed it.")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise RefusedError(403, "This request comes from a page of another site.")

    def _is_own(self, host: str) -> bool:
        """Whether a browser that sends this host was led here by a name of ours, or by a number, which is nobody's."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ip_address(name)
        except ValueError:
            return name in self.names
        return True


async def _with_body(headers: Headers, receive: Receive) -> Receive:
    """What gives the body in one piece, and after it what ``receive`` gives.

    Raises:
        RefusedError: it is too large, too slow or of another type.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "Expected a body of type application/json.")
    try:
        body = await asyncio.wait_for(_read(receive), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RefusedError(408, f"The body took more than {BODY_SECONDS} seconds to arrive.", close=True) from None
    pieces = [body]

    async def replay() -> Message:
        return {"type": "http.request", "body": pieces.pop(), "more_body": False} if pieces else await receive()

    return replay


async def _read(receive: Receive) -> bytes:
    body, size, complete = bytearray(), 0, False
    while not complete and size <= MAX_DRAINED * MAX_BODY:  # whatever was announced
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "The body ended early.")
        size += len(message.get("body", b""))
        body += message.get("body", b"") if size <= MAX_BODY else b""
        complete = not message.get("more_body", False)
    if size > MAX_BODY:
        raise RefusedError(
            413,
            f"More than {MAX_BODY // 2**20} MB at once: use smaller pictures, or fewer of them at a time.",
            close=not complete,
        )
    return bytes(body)
