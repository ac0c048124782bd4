"""Frames arrive as they were sent, or not at all."""

import socket
import threading

import pytest

from worker.frames import FROM_RUNNER, Answer, Done, Report, Word, receive, send


@pytest.fixture
def line() -> "tuple[socket.socket, socket.socket]":
    return socket.socketpair()


def test_frames_arrive_one_by_one(line: "tuple[socket.socket, socket.socket]") -> None:
    ours, theirs = line
    words: list[Word] = [
        Report(step=1, steps=2, message="träining ☕", loss=0.5),
        Report(step=2, steps=2, message="x" * 50_000),
        Done(outputs={"lora": "/x"}),
    ]
    frames = [Answer(run=3, word=word) for word in words]
    with ours, theirs:
        for frame in frames:
            send(ours, frame)
        received = [receive(theirs) for _ in frames]
    assert [FROM_RUNNER.validate_json(body) for body in received if body] == frames


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\5{}", b"\xff\xff\xff\xff"])
def test_a_line_that_ends_or_lies_says_nothing(
    line: "tuple[socket.socket, socket.socket]", sent: bytes
) -> None:
    ours, theirs = line
    with theirs:
        ours.sendall(sent)
        ours.close()
        assert receive(theirs) is None


def test_a_run_with_ten_thousand_long_captions_arrives(
    line: "tuple[socket.socket, socket.socket]",
) -> None:
    ours, theirs = line
    frame = Answer(run=1, word=Report(step=1, steps=1, message="字" * 10_000 * 4_000))
    sending = threading.Thread(target=send, args=(ours, frame))
    with ours, theirs:
        sending.start()
        body = receive(theirs)
        sending.join()
    assert body == frame.model_dump_json().encode()
