"""One attempt: a signed POST to an address that the guard has seen, and what came of it.

Signed as Standard Webhooks has it. No redirect is followed, no proxy asked, nothing kept open, and
it ends in time, however slowly somebody speaks.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import anyio
import anyio.to_thread
import httpcore
import httpx
from standardwebhooks import Webhook as Signer

from core.db.models import now
from core.errors import WebhookRefused
from core.webhooks.guard import Guard
from core.webhooks.outbox import Answer, Call

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""Looking up the name included."""
WHOLE_SECONDS = 15.0
_TEXT_SECONDS = 1.0
"""For the beginning of a refusal's text: its status has come, and that is what counts."""
_READ_BYTES = 4096
_SHOWN_CHARACTERS = 200
_ADDRESSES = 4
"""Of one name, that are tried."""

Resolve = Callable[[str, int], list[str]]
"""The addresses of a name, the best first; blocks. Raises OSError, or ValueError for no name."""


def resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Courier:
    """Carries calls to their receivers. Any number at once."""

    def __init__(
        self, guard: Guard, *, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        """``tls``: whom to trust; by default the public authorities, and those that the
        environment names to every program (``SSL_CERT_FILE``)."""
        self.guard = guard
        self._network = _SeenNetwork(guard, resolve)
        self._tls = tls or httpx.create_ssl_context()

    async def carry(self, call: Call) -> Answer:
        """Never fails: what went wrong is in the answer, as a sentence for the webhook's owner."""
        try:
            with anyio.fail_after(WHOLE_SECONDS):
                return await self._post(call)
        except WebhookRefused as refusal:
            return Answer(error=refusal.detail)
        except TimeoutError:
            return Answer(error=f"It did not answer within {WHOLE_SECONDS:.0f} s.")
        except httpcore.ConnectTimeout:
            return Answer(error=f"It took no connection within {CONNECT_SECONDS:.0f} s.")
        except httpcore.ConnectError as error:
            return Answer(error=f"There was no connection: {error}.")
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            return Answer(error=f"The connection broke: {error}.")
        except Exception:  # or it would be tried at the end of every lease, for ever
            log.exception("a delivery could not be sent")
            return Answer(error="It could not be sent; the server's log has the reason.")

    async def _post(self, call: Call) -> Answer:
        url = self.guard.check_url(call.url)  # the administrator may have changed their mind
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=self._network
            ) as pool,
            pool.stream(
                "POST",
                httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=signed_headers(call, now()),
                content=call.body.encode(),
                extensions={"timeout": {"connect": CONNECT_SECONDS}},
            ) as response,
        ):
            if 200 <= response.status < 300:
                return Answer(response.status)
            return Answer(
                response.status,
                error=f"It answered {_named(response.status)}{await _beginning(response)}",
                retry_after_seconds=_retry_after_seconds(response),
            )


def signed_headers(call: Call, at: datetime) -> dict[bytes | str, bytes | str]:
    """``webhook-id`` stays the same however often a delivery is sent."""
    return {
        "User-Agent": "stillroom",
        "Content-Type": "application/json",
        "webhook-id": call.delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(call.secret).sign(call.delivery_id, at, call.body),
    }


class _SeenNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the guard has seen. The name stays what the receiver's certificate
    and ``Host`` are about."""

    def __init__(self, guard: Guard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                addresses = await self._look_up(host, port)
                return await self._connect_to_any(addresses, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error

    async def _look_up(self, host: str, port: int) -> list[str]:
        """Once: whoever is asked again may answer something else."""
        try:
            addresses = await anyio.to_thread.run_sync(
                self._resolve, host, port, abandon_on_cancel=True
            )
        except (OSError, ValueError) as error:
            raise httpcore.ConnectError("its name is not known") from error
        self._guard.check_addresses(host, addresses)
        return addresses[:_ADDRESSES]

    async def _connect_to_any(self, addresses: list[str], port: int) -> httpcore.AsyncNetworkStream:
        share_seconds = CONNECT_SECONDS / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, share_seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                pass
        return await self._network.connect_tcp(addresses[-1], port)


def _named(status: int) -> str:
    if 300 <= status < 400:
        return f"{status}, and redirects are not followed: make a webhook with its new address"
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


async def _beginning(response: httpcore.Response) -> str:
    """Of what else it said: printable, and short."""
    read = b""
    with anyio.move_on_after(_TEXT_SECONDS):
        async with aclosing(response.aiter_stream()) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                read += piece
                if len(read) >= _READ_BYTES:
                    break
    words = read[:_READ_BYTES].decode("utf-8", "replace").split()
    text = "".join(each for each in " ".join(words) if each.isprintable())
    return f": {text[:_SHOWN_CHARACTERS]}" if text else "."


def _retry_after_seconds(response: httpcore.Response) -> float | None:
    """Of 429 and 503: seconds or a date, as HTTP has it; what is neither is passed over."""
    if response.status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return None
    told = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    text = told.decode("latin-1").strip()
    if text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        return (at.replace(tzinfo=at.tzinfo or UTC) - now()).total_seconds()
    except (ValueError, OverflowError):
        return None
