"""A server of files on this machine, in the place of the network."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Answers with ``files``, names and contents, and keeps a list of the names that it was asked for."""

    daemon_threads = False  # closing the server waits for its answers

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.missing = 0  # bytes at the end of every file that are promised and not sent
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client leaves early, as torchvision does when it looks for redirections."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:  # the name that the library calls
        content = self._head()
        if content is not None:
            self.wfile.write(content[: len(content) - self.server.missing])

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes | None:
        name = self.path.removeprefix("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""
