"""A web server on this machine that serves one file slowly, or only half of it, as told."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class Trickle(ThreadingHTTPServer):
    """Serves `content`; see the attributes for how."""

    content = b""
    pause = 0.0  # seconds between two pieces of 64 kB
    breaks_after: int | None = None  # bytes after which each connection ends
    leads_to = ""  # another address
    asked = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}/file"


def without_certificate() -> Any:
    """Make a way to send a request that speaks to this server, which has no certificate, plainly.

    Returns:
        What takes the place of `requests.adapters.HTTPAdapter.send`.
    """
    send: Any = requests.adapters.HTTPAdapter.send

    def plain(adapter: object, request: requests.PreparedRequest, **more: object) -> object:
        asked, request.url = request.url, str(request.url).replace("https:", "http:", 1)
        answer = send(adapter, request, **more)
        request.url = answer.url = asked
        return answer

    return plain


class Answer(BaseHTTPRequestHandler):
    server: Trickle

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.leads_to:
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200 if self.server.content else 404)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        for start in range(0, len(self.server.content), 1 << 16):
            if self.server.breaks_after is not None and start >= self.server.breaks_after:
                break
            self.wfile.write(self.server.content[start : start + (1 << 16)])
            time.sleep(self.server.pause)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def trickling(content: bytes) -> Iterator[Trickle]:
    """Serve until the block ends."""
    with Trickle(("127.0.0.1", 0), Answer) as server:
        server.content = content
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
