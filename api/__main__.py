"""`python -m api`: the front end alone, on the address that the settings name."""

import signal
import sys

import uvicorn

from api.main import create_app
from core import log
from core.config import Settings
from core.tether import die_with_parent

OPEN_REQUESTS_SECONDS = 5
"""Downloads under way at the end are cut after this; clients go on with Range."""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn ends, then raises it anew
    die_with_parent()
    settings = Settings()
    log.configure(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=OPEN_REQUESTS_SECONDS,
    )


if __name__ == "__main__":
    main()
