"""A web server on this machine that serves one file slowly, in parts, or wrongly, as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Trickle(ThreadingHTTPServer):
    """Serves `content`; see the attributes for how."""

    content = b""
    etag = '"one"'
    ranges = True  # whether it sends parts
    pause = 0.0  # seconds between two pieces of 64 kB
    breaks_after: int | None = None  # bytes after which each connection ends
    asked: list[str]  # the Range of each request, or ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Answer(BaseHTTPRequestHandler):
    server: Trickle

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if self.headers.get("If-Range", server.etag) != server.etag:
            start = 0
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for offset in range(0, len(body), 1 << 16):
                if server.breaks_after is not None and offset >= server.breaks_after:
                    self.close_connection = True
                    return
                self.wfile.write(body[offset : offset + (1 << 16)])
                time.sleep(server.pause)
        except OSError:  # the client was killed, which is what it is here for
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def trickling(content: bytes) -> Iterator[Trickle]:
    """Serve until the block ends."""
    with Trickle(("127.0.0.1", 0), Answer) as server:
        server.content, server.asked = content, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
