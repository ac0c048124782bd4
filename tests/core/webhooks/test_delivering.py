"""From the row to a real receiver: signed, once at a time, again after a failure, and never to an
address that a guard has not seen."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from standardwebhooks import WebhookVerificationError

from core.config import Settings
from core.db.engine import Database
from core.webhooks import courier, deliverer
from core.webhooks.deliverer import delivering
from tests.support.log_lines import json_lines
from tests.support.receiver import Got, Receiver, Reply, receiving, reply
from tests.support.server import wait_until
from tests.support.webhooks import create, deliver, pass_time, ring, told

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def errors(database: Database) -> list[str | None]:
    return [delivery.error for delivery in told(database)]


def states(database: Database) -> list[str]:
    return [delivery.state for delivery in told(database)]


def test_it_arrives_signed(any_database: Database, receiver: Receiver) -> None:
    webhook = create(any_database, url=f"{receiver.url}/a?b=c")
    delivery = ring(any_database, webhook)
    deliver(any_database)
    (got,) = receiver.got
    assert got.verified(webhook.secret) == {
        "type": "webhook.test",
        "timestamp": json.loads(delivery.body)["timestamp"],
        "data": {"webhook": webhook.id},
    }
    assert got.path == "/hook/a?b=c"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.id == delivery.id
    with pytest.raises(WebhookVerificationError):
        got.verified(create(any_database).secret)
    (sent,) = told(any_database)
    assert (sent.state, sent.status, sent.error, sent.attempts) == ("delivered", 204, None, 1)
    assert sent.ended_at is not None
    deliver(any_database)
    assert len(receiver.got) == 1


def test_what_failed_is_sent_again_under_the_same_id(
    database: Database, receiver: Receiver
) -> None:
    webhook = create(database, url=receiver.url)
    ring(database, webhook)
    receiver.answer = lambda got: reply(500, b"out of\n  <b>cheese</b>\0\x1b[31m" + b"x" * 9999)
    deliver(database)
    (sent,) = told(database)
    assert (sent.state, sent.status, sent.attempts) == ("pending", 500, 1)
    assert sent.error is not None
    assert sent.error.startswith(
        "It answered 500 Internal Server Error: out of <b>cheese</b>[31mxxx"
    )
    assert len(sent.error) < 300
    deliver(database)
    assert len(receiver.got) == 1  # its time has not come
    receiver.answer = lambda got: reply(200)
    pass_time(database)
    deliver(database)
    first, second = receiver.got
    assert (first.id, first.body) == (second.id, second.body)
    second.verified(webhook.secret)
    (sent,) = told(database)
    assert (sent.state, sent.status, sent.error, sent.attempts) == ("delivered", 200, None, 2)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int, database: Database, receiver: Receiver) -> None:
    with receiving() as other:
        receiver.answer = lambda got: reply(status, Location=other.url)
        ring(database, create(database, url=receiver.url))
        deliver(database)
        assert other.got == []
    (sent,) = told(database)
    assert (sent.state, sent.status) == ("pending", status)
    assert "redirects are not followed" in str(sent.error)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(429, Retry_After="120"), 120),
        (reply(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 0),
        (reply(503, Retry_After="soon"), 0),
        (reply(503, Retry_After="Wed, 31 Dec 9999 23:59:59 -2359"), None),
        (reply(503, Retry_After="9" * 400), None),
        (reply(500, Retry_After="120"), 0),
        (reply(299), None),
        (reply(418), 0),
        (reply(999), 0),
        (reply(410), None),
    ],
)
def test_what_answers_mean(
    answer: Reply, seconds: float | None, database: Database, receiver: Receiver
) -> None:
    receiver.answer = lambda got: answer
    ring(database, create(database, url=receiver.url))
    deliver(database)
    (sent,) = told(database)
    assert sent.status == answer[0]
    if seconds is None:
        assert sent.state == ("delivered" if answer[0] < 300 else "failed")
        return
    assert sent.next_attempt_at is not None
    pause = (sent.next_attempt_at - sent.created_at).total_seconds()
    assert (pause >= seconds, pause > 60) == (True, seconds > 60)


def test_nobody_there(database: Database) -> None:
    with receiving() as gone:
        pass
    ring(database, create(database, url=gone.url))
    deliver(database)
    (sent,) = told(database)
    assert (sent.state, sent.status) == ("pending", None)
    assert str(sent.error).startswith("There was no connection")


def test_a_name_that_nobody_knows(database: Database) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    ring(database, create(database))
    deliver(database, resolve=unknown)
    assert errors(database) == ["There was no connection: its name is not known."]


def test_names_are_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    def slow(host: str, port: int) -> list[str]:
        held.wait(30)
        return ["8.8.8.8"]

    monkeypatch.setattr(courier, "CONNECT_SECONDS", 0.1)
    ring(database, create(database))
    deliver(database, resolve=slow)
    assert errors(database) == ["It took no connection within 0 s."]


def test_what_nobody_foresaw_is_a_failure_like_others(database: Database) -> None:
    def broken(host: str, port: int) -> list[str]:
        raise RuntimeError("hush")

    ring(database, create(database))
    with json_lines() as lines:
        deliver(database, resolve=broken)
    assert errors(database) == ["It could not be sent; the server's log has the reason."]
    assert "hush" in str(lines())


class Resolver:
    """Answers with one list of addresses after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def test_a_name_that_comes_to_mean_something_private_is_not_called(
    database: Database, receiver: Receiver
) -> None:
    ring(database, create(database, url=f"https://hooks.example:{receiver.port}/"))
    for answer in (["127.0.0.1"], ["2606:4700::1111", "10.0.0.1"], ["::ffff:127.0.0.1"]):
        deliver(database, resolve=Resolver(answer))
        pass_time(database)
        assert "has an address that is not public" in str(errors(database))
    assert receiver.got == []


def test_the_address_that_was_seen_is_the_one_that_is_connected_to(database: Database) -> None:
    with receiving() as first, receiving(host="127.0.0.2", port=first.port) as second:
        rebinding = Resolver(["127.0.0.1"], ["127.0.0.2"])
        hosts = ("hooks.house",)
        webhook = create(database, url=f"http://hooks.house:{first.port}/", hosts=hosts)
        ring(database, webhook)
        deliver(database, hosts=hosts, resolve=rebinding)
        assert (len(first.got), len(second.got)) == (1, 0)
        assert rebinding.asked == ["hooks.house"]  # once
        assert first.got[0].headers["host"] == f"hooks.house:{first.port}"


def test_a_receiver_with_a_dead_address_is_found_at_the_next(
    database: Database, receiver: Receiver
) -> None:
    hosts = ("hooks.house",)
    ring(database, create(database, url=f"http://hooks.house:{receiver.port}/", hosts=hosts))
    deliver(database, hosts=hosts, resolve=Resolver(["127.0.0.9", "127.0.0.1"]))
    assert states(database) == ["delivered"]


def test_a_host_that_the_administrator_no_longer_names_is_not_called(
    database: Database, receiver: Receiver
) -> None:
    ring(database, create(database, url=receiver.url))
    deliver(database, hosts=())
    assert receiver.got == []
    assert "STILLROOM_WEBHOOK_HOSTS" in str(errors(database))


def test_proxies_of_the_environment_are_not_asked(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    ring(database, create(database, url=receiver.url))
    deliver(database)
    assert states(database) == ["delivered"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("name", ["hooks.house", "other.house"])
def test_certificates_are_those_of_the_name(
    name: str, database: Database, authority: trustme.CA
) -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.house").configure_cert(theirs)
    asked_for: list[str | None] = []
    theirs.sni_callback = lambda _socket, sni, _context: asked_for.append(sni)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    with receiving(tls=theirs) as receiver:
        url = f"https://{name}:{receiver.port}/"
        ring(database, create(database, url=url, hosts=(name,)))
        seen = Resolver(["127.0.0.1"])
        deliver(database, hosts=(name,), resolve=seen, tls=ours)
        got = [each.headers["host"] for each in receiver.got]
    assert asked_for == [name]
    if name == "hooks.house":
        assert (states(database), got) == (["delivered"], [f"{name}:{receiver.port}"])
    else:
        assert "certificate verify failed" in str(errors(database))
        assert got == []


def test_unknown_authorities_are_not_trusted(database: Database, authority: trustme.CA) -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    with receiving(tls=theirs) as receiver:
        ring(database, create(database, url=receiver.url))
        deliver(database)
        assert receiver.got == []
    assert "certificate verify failed" in str(errors(database))


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Receivers that wait for it answer at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_who_drips_is_left_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr(courier, "WHOLE_SECONDS", 0.4)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        with listener.accept()[0] as connection:
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
                if held.wait(0.05):
                    return
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    ring(database, create(database, url=f"http://127.0.0.1:{listener.getsockname()[1]}/"))
    deliver(database)
    held.set()
    thread.join()
    listener.close()
    assert errors(database) == ["It did not answer within 0 s."]


def test_two_processes_send_each_once(any_database: Database, receiver: Receiver) -> None:
    rung = {
        ring(any_database, create(any_database, owner=owner, url=receiver.url)).id
        for owner in "abcdef"
    }
    threads = [threading.Thread(target=deliver, args=[any_database]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got.id for got in receiver.got) == sorted(rung)
    assert [delivery.attempts for delivery in told(any_database)] == [1] * 6


def test_a_dead_receiver_keeps_others_waiting_for_nothing(
    database: Database, receiver: Receiver, held: threading.Event
) -> None:
    def hang(got: Got) -> Reply:
        held.wait(30)
        return reply(500)

    with receiving() as dead:
        dead.answer = hang
        for _ in range(2 * deliverer.PLACES_OF_OWNER):
            ring(database, create(database, owner="bob", url=dead.url))
        good = create(database, owner="ada", url=receiver.url)
        for _ in range(3):
            ring(database, good)
        thread = threading.Thread(target=deliver, args=[database])
        thread.start()
        wait_until(lambda: len(receiver.got) == 3, 25, "the good one was told everything")
        assert not any(delivery.ended_at for delivery in told(database)[:-3])
        held.set()
        thread.join()
        assert len(dead.got) == deliverer.PLACES_OF_OWNER


def test_one_webhook_is_told_in_order_and_rests_after_a_failure(
    database: Database, receiver: Receiver
) -> None:
    webhook = create(database, url=receiver.url)
    rung = [ring(database, webhook).id for _ in range(3)]
    answers = iter([reply(200), reply(500), reply(200)])
    receiver.answer = lambda got: next(answers)
    deliver(database)
    assert [got.id for got in receiver.got] == rung[:2]
    deliver(database)
    assert [got.id for got in receiver.got] == rung


def lines_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["from"] == deliverer.__name__]


def test_logs_say_which_and_how_and_no_secret(database: Database, receiver: Receiver) -> None:
    webhook = create(database, url=f"{receiver.url}?token=hush")
    receiver.answer = lambda got: reply(410)
    delivery = ring(database, webhook)
    with json_lines() as lines:
        deliver(database)
    (line,) = lines_of(lines())
    assert line["message"] == "told a webhook of webhook.test: failed"
    assert line["request_id"] == "asked"
    assert (line["webhook"], line["delivery"], line["status"], line["attempt"]) == (
        *(webhook.id, delivery.id, 410, 1),
    )
    assert "whsec_" not in str(lines())
    assert "hush" not in str(lines())


def test_the_thread_of_a_process_delivers_and_ends_without_waiting_for_anybody(
    database: Database,
    receiver: Receiver,
    held: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 0.05)
    settings = Settings(webhook_hosts=["127.0.0.1"])
    webhook = create(database, url=receiver.url)

    def hang(got: Got) -> Reply:
        held.wait(30)
        return reply(200)

    with delivering(database, settings):
        ring(database, webhook)
        wait_until(lambda: states(database) == ["delivered"], 60, "it is delivered")
        receiver.answer = hang
        cut = ring(database, webhook)
        wait_until(lambda: len(receiver.got) == 2, 25, "the other is being sent")
    assert told(database)[-1].is_sending
    held.set()
    pass_time(database)
    deliver(database)
    assert [got.id for got in receiver.got[1:]] == [cut.id, cut.id]
    assert states(database) == ["delivered", "delivered"]
