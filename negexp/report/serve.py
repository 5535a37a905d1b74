"""Serve one page on 127.0.0.1, and its version, by which the page knows when to load itself again.

Nothing else is served, and no request names a file. A request must name this machine as its host: a page of another
site could otherwise point a name of its own at 127.0.0.1 and read the report (DNS rebinding).
"""

from __future__ import annotations

import base64
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from negexp.errors import InputError

HOST = "127.0.0.1"
SCRIPT = """
const own = document.currentScript.dataset.version, note = document.getElementById("watch");
async function look() {
  try {
    const answer = await fetch("/version", {cache: "no-store"});
    if (answer.ok && await answer.text() !== own) { location.reload(); return; }
    note.textContent = "This page loads itself again when a run commits.";
  } catch (error) {
    note.textContent = "The watch has ended. This is its last report.";
  }
  setTimeout(look, 1000);
}
look();
"""
NOTE = b'<p id="watch" class="faint" role="status"></p>\n'
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (  # the page may run this script only, and load nothing from elsewhere
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LivePage:
    """A server of one page. It runs in threads of its own, until the end of its block."""

    def __init__(self, port: int) -> None:
        """Take a port of 127.0.0.1, 0: any free one. Raises `InputError` when it is not to be had."""
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            reason = f"cannot be used ({error.strerror}); give another, or 0 for a free one"
            raise InputError(f"port={port}: {reason}") from None

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://{HOST}:{self._server.server_port}/"

    def show(self, page: bytes) -> None:
        """Serve a page from now on. Its version is a digest of its content."""
        version = hashlib.sha256(page).hexdigest()[:16]
        script = f'<script data-version="{version}">{SCRIPT}</script>\n'.encode()
        head, end, tail = page.rpartition(b"</body>")
        self._server.served = version, head + NOTE + script + end + tail

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop serving, and free the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    served: tuple[str, bytes] | None = None  # version and page, replaced at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a browser goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds for a request
    server_version, sys_version = "negexp", ""

    def do_GET(self) -> None:
        """Answer with the page or its version."""
        port = self.server.server_port
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")} | ({HOST, "localhost"} if port == 80 else set())
        if self.headers.get("Host") not in hosts:
            return self._answer(403, b"this page is for 127.0.0.1 only\n")
        served = self.server.served
        if self.path not in ("/", "/version"):
            return self._answer(404, b"there are / and /version\n")
        if served is None:
            return self._answer(503, b"the first report is being written\n")
        if self.path == "/version":
            return self._answer(200, served[0].encode())
        return self._answer(200, served[1], "text/html")

    do_HEAD = do_GET  # noqa: N815  (http.server finds methods by these names)

    def _answer(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print no line for a request."""
