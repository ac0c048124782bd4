"""`python -m api`: the front end alone, on the address that the settings name."""

import os
import signal
import socket
import sys
import threading

from api.connection import take_descriptors
from api.main import create_app
from api.server import Server
from core import log
from core.config import Settings
from core.tether import die_with_parent

THREADS_SECONDS = 5
"""A thread deep in an upload cannot be cut; an upload that was not answered is sent again."""

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Of addresses that are every interface, and no place to go to."""


class Process(Server):
    """Ends in time, whatever its threads are doing."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sys.stderr.isatty():  # never into a log: it holds the key
            sys.stderr.write(f"\n  The page: {self._page()}\n\n")

    def _page(self) -> str:
        """Where it is, for whoever started us. The key is in the fragment: no browser sends it."""
        port = self.servers[0].sockets[0].getsockname()[1]
        host = LOOPBACK.get(self.settings.host, self.settings.host)
        place = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        key = self.settings.admin_key_path
        return f"{place}#key={key.read_text().strip()}" if key.exists() else place

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        last = threading.Timer(THREADS_SECONDS, os._exit, [0])
        last.daemon = True
        last.start()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn ends, then raises it anew
    os.umask(0o077)  # what is in the home is this user's alone
    die_with_parent()
    take_descriptors()
    settings = Settings()
    log.configure(settings.log_level)
    Process(create_app(settings), settings).run()


if __name__ == "__main__":
    main()
