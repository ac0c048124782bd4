"""Real sockets for client and command line: the API itself, and a server that misbehaves."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.main import create_app
from api.server import Server
from core.config import Settings


@dataclass(frozen=True)
class Live:
    url: str
    settings: Settings
    app: FastAPI
    stop: Callable[[], None]
    """Ends the server, and returns once it has ended."""

    @property
    def home(self) -> Path:
        return self.settings.root

    @property
    def key(self) -> str:
        return self.settings.admin_key_path.read_text().strip()


@contextmanager
def serving_api(home: Path, **more: Any) -> Iterator[Live]:
    """The front end alone, on a free port, with ``more`` settings: jobs are taken and stay
    queued."""
    settings = Settings(home=home, port=free_port(), **more)
    server = Server(create_app(settings), settings)
    thread = threading.Thread(target=server.run)

    def stop() -> None:
        server.should_exit = True
        thread.join()

    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started, "the API did not start"
        yield Live(f"http://127.0.0.1:{settings.port}", settings, server.app, stop)
    finally:
        stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Answer = tuple[int, object]


@contextmanager
def answering(
    answer: Callable[[str], Answer], *, port: int = 0, location: str = ""
) -> Iterator[str]:
    """A server that says what ``answer`` makes of a path: a status, and bytes or JSON. With status
    0 it hangs up instead. ``location`` is where its redirects lead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            if not status:
                return
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
