"""uvicorn, which sends those away who wait for a job before it waits for open answers itself."""

import socket

import uvicorn
from fastapi import FastAPI

from api.connection import Connection
from core.config import Settings

OPEN_REQUESTS_SECONDS = 5
"""Requests under way at the end are cut after this; downloads go on with Range."""


class Server(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=OPEN_REQUESTS_SECONDS,
        )
        super().__init__(config)
        self.app = app
        self.settings = settings

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.feed.close()
        await super().shutdown(sockets)
