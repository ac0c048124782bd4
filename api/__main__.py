"""`python -m api`: the front end alone, on the address that the settings name."""

import os
import signal
import socket
import sys
import threading

from api.main import create_app
from api.server import Server
from core import log
from core.config import Settings
from core.tether import die_with_parent

THREADS_SECONDS = 5
"""A thread deep in a picture cannot be cut; an upload that was not answered is sent again."""


class Process(Server):
    """Ends in time, whatever its threads are doing."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        last = threading.Timer(THREADS_SECONDS, os._exit, [0])
        last.daemon = True
        last.start()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn ends, then raises it anew
    os.umask(0o077)  # what is in the home is this user's alone
    die_with_parent()
    settings = Settings()
    log.configure(settings.log_level)
    Process(create_app(settings), settings).run()


if __name__ == "__main__":
    main()
