"""A hub on loopback that serves a few small files as the real one does: listing, HEAD, Range."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = re.compile(
    r"^/(?:api/models/)?([\w.-]+/[\w.-]+)/(?:revision|resolve)/([0-9a-f]{40})(/.*)?$"
)


class Hub:
    """``files`` by repository and path; ``cut`` names one that breaks off once, halfway."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files
        self.cut: str | None = None
        self.lie: str | None = None
        self.ranges: list[str] = []
        self.served: list[str] = []

    def listing(self, repository: str, commit: str) -> dict[str, Any]:
        return {
            "id": repository,
            "modelId": repository,
            "sha": commit,
            "tags": [],
            "siblings": [
                self._sibling(path, data) for path, data in self.files[repository].items()
            ],
        }

    def _sibling(self, path: str, data: bytes) -> dict[str, Any]:
        sibling: dict[str, Any] = {
            "rfilename": path,
            "size": len(data),
            "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        }
        if path.endswith(".safetensors"):
            sha256 = hashlib.sha256(b"lie" if path == self.lie else data).hexdigest()
            sibling["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 1}
        return sibling


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            found = COMMIT.match(self.path.split("?")[0])
            assert found, self.path
            repository, commit, path = found.groups()
            if not path:
                self._send(json.dumps(hub.listing(repository, commit)).encode(), commit, with_body)
                return
            data = hub.files[repository][path.removeprefix("/")]
            if with_body:
                hub.served.append(path.removeprefix("/"))
            self._send(data, commit, with_body, cut=with_body and path == f"/{hub.cut}")

        def _send(self, data: bytes, commit: str, with_body: bool, cut: bool = False) -> None:
            start = 0
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                hub.ranges.append(wanted)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if cut:
                hub.cut = None
                self.wfile.write(data[start : (start + len(data)) // 2])
                self.close_connection = True
            elif with_body:
                self.wfile.write(data[start:])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
