"""What every request passes first: its id, the name it was sent to, its key, its size."""

import asyncio
import logging
import re
import time
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import quote

import anyio.to_thread
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.tally import Tally
from core import log as logs
from core.config import MIB, Settings
from core.errors import (
    NotFound,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    WrongHost,
)
from core.ids import new_id
from core.owners import service as owners
from core.owners.service import Caller

log = logging.getLogger(__name__)

JSON_BODY_BYTES = 4 * MIB
"""Every body but an upload is read into memory whole."""
_UPLOADS = re.compile(r"/v1/(datasets/[^/]+/images|artifacts)/?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RequestIds:
    """Names each request, answers for what nobody else caught, counts it and logs how it went."""

    def __init__(self, app: ASGIApp, tally: Tally) -> None:
        self.app = app
        self.tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.monotonic()
        with logs.bind(request_id=request_id):
            try:
                await self.app(scope, receive, answer)
            except asyncio.CancelledError:
                if answer.status is not None:
                    raise
                await errors.stopping(request_id)(scope, receive, answer)
            except ClientDisconnect:
                log.info("the client left before it had said or heard everything")
            except Exception as error:
                log.exception("a request failed")
                if answer.status is not None:
                    raise  # half an answer is out: only a broken connection says so
                await errors.unforeseen(error, request_id)(scope, receive, answer)
            seconds = time.monotonic() - started
            self.tally.count(scope, answer.status, seconds)
            log.log(
                _level(scope["method"], answer.status),
                "%s %s",
                scope["method"],
                quote(scope["path"]),  # a path may hold line ends
                extra={"status": answer.status, "seconds": round(seconds, 4)},
            )


def _request_id_of(scope: Scope) -> str:
    """The client's own name for it, where that is one that a log line can hold; else a new one."""
    sent = Headers(scope=scope).get("X-Request-Id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else new_id("req")


def _level(method: str, status: int | None) -> int:
    """Reading what is there is no news: clients that wait do it several times a second."""
    ordinary = method == "GET" and status is not None and status < HTTPStatus.BAD_REQUEST
    return logging.DEBUG if ordinary else logging.INFO


class _Answer:
    """Adds the headers that every answer has, and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.status: int | None = None
        self._send = send
        self._request_id = request_id

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)


class HostCheck:
    """Answers only to names it was given, so that no web page can reach it by rebinding a name."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        bound = () if _is_any(settings.host) else (settings.host,)
        names = (*_LOOPBACK, *bound, *settings.allowed_hosts)
        self.names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = _host_of(scope) if scope["type"] == "http" else None
        if host is None or host in self.names:
            await self.app(scope, receive, send)
            return
        refusal = WrongHost(
            f"This server does not answer to {host!r}. Its administrator can add the name to "
            "STILLROOM_ALLOWED_HOSTS."
        )
        await _refuse(refusal, scope, receive, send)


class ZeroBytes:
    """Refuses them in addresses: no name of ours has one, and PostgreSQL takes none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "\0" in scope["path"]:
            refusal: ServiceError = NotFound(f"There is nothing at {quote(scope['path'])}.")
            await _refuse(refusal, scope, receive, send)
        elif scope["type"] == "http" and b"%00" in scope["query_string"]:
            refusal = Unprocessable("The query holds a zero byte: leave it out.")
            await _refuse(refusal, scope, receive, send)
        else:
            await self.app(scope, receive, send)


class KeyCheck:
    """Who asks, before anything they sent is read; routes find them in ``request.state.caller``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.places = ("/v1/",) if settings.metrics_open else ("/v1/", "/metrics")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self.places):
            try:
                scope["state"]["caller"] = await _caller_of(scope)
            except ServiceError as refusal:
                await _refuse(refusal, scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _caller_of(scope: Scope) -> Caller:
    scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("Authorization"))
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Send a key, as in `Authorization: Bearer stillroom_…`.")

    def authenticate() -> Caller:
        with scope["app"].state.database.read() as session:
            return owners.authenticate(session, token)

    return await anyio.to_thread.run_sync(authenticate)


class BodyCap:
    """Counts what arrives, whatever Content-Length says, and stops reading at the cap."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.upload_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cap = self._cap(scope)
        refusal = TooLarge(f"The body may have {cap:,} bytes: send fewer files at a time.")
        declared = Headers(scope=scope).get("Content-Length", "")
        if declared.isdecimal() and int(declared) > cap:
            await _refuse(refusal, scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > cap:
                raise refusal
            return message

        await self.app(scope, counted, send)

    def _cap(self, scope: Scope) -> int:
        upload = scope["method"] == "POST" and _UPLOADS.fullmatch(scope["path"])
        return self.upload_bytes if upload else min(JSON_BODY_BYTES, self.upload_bytes)


async def _refuse(refusal: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    answer = errors.on_service_error(Request(scope), refusal)
    await answer(scope, receive, send)


def _host_of(scope: Scope) -> str:
    host = Headers(scope=scope).get("Host", "").lower()
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name.removeprefix("[").removesuffix("]")


def _is_any(host: str) -> bool:
    """0.0.0.0 and ::, which are places to listen at and no names."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
