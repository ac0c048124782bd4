"""Which addresses a webhook may have: public ones, over https, and what the administrator named.

Whoever may make a webhook makes this server send requests, and must not reach with them what only
the server can reach. What is written in an address is checked when the webhook is made and before
each attempt; what its name means, at each attempt, on the very addresses that are then connected to
(``core.webhooks.courier``): a name may mean something else by the next look.
"""

import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from core.config import Settings
from core.errors import Problem, WebhookRefused

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""The only IPv6 addresses that are handed out."""
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))
"""6to4 and Teredo lead to an IPv4 address that is written inside; nobody receives there now."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""How a network without IPv4 writes the IPv4 addresses of others."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Guard:
    """``hosts``: names and literal addresses of receivers in the house, in lower case. They may be
    called over http and wherever they are."""

    hosts: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> "Guard":
        return cls(frozenset(settings.webhook_hosts))

    def check_url(self, text: str) -> httpx.URL:
        """``text`` as an address that may be called, as far as can be told without asking DNS.

        Raises:
            WebhookRefused: it is none, or none of those.
        """
        url = _parsed(text)
        host = url.raw_host.decode("ascii")  # as it is looked up: lower case, no brackets
        if url.scheme not in ("http", "https"):
            raise _refused(f"It begins with {url.scheme + '://' if url.scheme else 'no scheme'}")
        if url.userinfo:
            raise _refused("It holds a user's name or password; deliveries are signed instead")
        if url.port is not None and not 0 < url.port < 65536:
            raise _refused(f"There is no port {url.port}")
        if host in self.hosts:
            return url
        if url.scheme == "http":
            raise _refused("It begins with http://, which anybody on the way can read")
        address = _literal(host)
        if address is not None and not is_public(address):
            raise _refused(f"{host!r} is not a public address")
        if address is None and not _NAME.fullmatch(host):
            raise _refused(f"{host!r} is no host's name")
        if f".{host}".rstrip(".").endswith(".localhost"):
            raise _refused(f"{host!r} is this server itself")
        return url

    def check_addresses(self, host: str, addresses: Collection[str]) -> None:
        """That what ``host`` means just now may be connected to: all of it, or nothing.

        Raises:
            WebhookRefused: one of ``addresses`` is not public. Which is not told: names of the
                house are none of the owner's business.
        """
        if host not in self.hosts and not all(is_public(ip_address(each)) for each in addresses):
            raise _refused(f"{host!r} has an address that is not public")


def is_public(address: Address) -> bool:
    """Whether it belongs to somebody on the internet, and to one alone."""
    if isinstance(address, IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST or any(address in tunnel for tunnel in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inside(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that it stands for."""
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped


def _literal(host: str) -> Address | None:
    """The address that ``host`` itself is, in any notation that a resolver would take for one."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))  # 127.1, 0x7f.1, 2130706433, 0177.1
    except OSError:
        return None


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise _refused(f"It is no address: {error}") from error
    if not url.raw_host:
        raise _refused("It names no host")
    return url


def _refused(reason: str) -> WebhookRefused:
    detail = (
        f"{reason}: a webhook's `url` is https:// and a public host. For a receiver in the house, "
        "ask the administrator to name its host in STILLROOM_WEBHOOK_HOSTS."
    )
    return WebhookRefused(detail, errors=[Problem("/url", WebhookRefused.code, detail)])
