"""Which addresses a webhook may have, and which it never gets to."""

from ipaddress import ip_address

import pytest

from core.errors import WebhookRefused
from core.webhooks.guard import Guard, is_public

STRICT = Guard(frozenset())
LAX = Guard(frozenset({"hooks.house", "10.0.0.7", "::1"}))

PRIVATE = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private a": "10.0.0.1",
    "carriers' nat": "100.64.0.1",
    "loopback": "127.0.0.1",
    "far loopback": "127.255.0.1",
    "link-local, metadata": "169.254.169.254",
    "private b": "172.16.0.1",
    "protocols": "192.0.0.1",
    "documentation": "192.0.2.1",
    "private c": "192.168.1.1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6 unspecified": "::",
    "v6 loopback": "::1",
    "v6 link-local": "fe80::1",
    "v6 link-local with a zone": "fe80::1%eth0",
    "v6 unique local": "fd00::1",
    "v6 site-local": "fec0::1",
    "v6 multicast": "ff0e::1",
    "v6 documentation": "2001:db8::1",
    "v6 discard": "100::1",
    "v6 not handed out": "4000::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped private": "::ffff:a00:1",
    "compatible": "::127.0.0.1",
    "6to4 of loopback": "2002:7f00:1::1",
    "6to4 at all": "2002:808:808::1",
    "teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "nat64 of private": "64:ff9b::a00:1",
    "nat64 of metadata": "64:ff9b::169.254.169.254",
    "local nat64": "64:ff9b:1::808:808",
}
PUBLIC = ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(WebhookRefused) as refused:
        STRICT.check_addresses("hooks.example", ["8.8.8.8", address])
    assert (
        address not in refused.value.detail
    )  # names of the house are none of the owner's business


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is(address: str) -> None:
    assert is_public(ip_address(address))
    STRICT.check_addresses("hooks.example", [address])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "017700000001",
        "0300.0250.0.1",
        "0xa9fea9fe",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::ffff:7f00:0001]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "api.localhost",
        "127。0。0。1",
        "169.254.169.254",
    ],
)
def test_written_addresses_are_seen_through(host: str) -> None:
    for url in (f"https://{host}/x", f"https://{host}:8443"):
        with pytest.raises(WebhookRefused):
            STRICT.check_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example/", "begins with http://"),
        ("ftp://hooks.example/", "begins with ftp://"),
        ("file:///etc/passwd", "names no host"),
        ("hooks.example", "names no host"),
        ("//hooks.example/x", "no scheme"),
        ("https://", "names no host"),
        ("https:///x", "names no host"),
        ("https://ann:secret@hooks.example/", "user's name"),
        ("https://ann@hooks.example/", "user's name"),
        ("https://hooks.example\\@10.0.0.1/", "user's name"),
        ("https://hooks.example:0/", "no port 0"),
        ("https://hooks.example:99999/", "no port 99999"),
        ("https://ho%6fks.example/", "no host's name"),
        ("https://ho oks.example/", "no host's name"),
        ("https://[::1/", "no address"),
        ("https://hooks.example/\x7f", "no address"),
    ],
)
def test_what_no_webhook_is(url: str, reason: str) -> None:
    with pytest.raises(WebhookRefused, match="STILLROOM_WEBHOOK_HOSTS") as refused:
        STRICT.check_url(url)
    assert reason in refused.value.detail
    assert "secret" not in refused.value.detail
    assert refused.value.errors[0].pointer == "/url"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example",
        "https://hooks.example:8443/a/b?token=c",
        "https://mylocalhost.example/",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://xn--bcher-kva.example/x",
    ],
)
def test_what_may_be_called(url: str) -> None:
    assert str(STRICT.check_url(url)) == url


def test_a_name_in_other_letters_is_kept_as_it_is_looked_up() -> None:
    assert str(STRICT.check_url("https://Bücher.example/ä")) == (
        "https://xn--bcher-kva.example/%C3%A4"
    )


@pytest.mark.parametrize(
    "url", ["http://hooks.house:9000/x", "https://HOOKS.house", "http://10.0.0.7", "http://[::1]/"]
)
def test_the_administrator_may_name_receivers_in_the_house(url: str) -> None:
    LAX.check_url(url)
    LAX.check_addresses("hooks.house", ["10.0.0.9", "::1"])


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.8", "http://a.hooks.house", "ftp://hooks.house", "https://a:b@hooks.house"],
)
def test_and_those_alone(url: str) -> None:
    with pytest.raises(WebhookRefused):
        LAX.check_url(url)
