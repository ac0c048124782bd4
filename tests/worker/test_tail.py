"""What a runner wrote, as its owner may see it."""

import json

import pytest

from worker.tail import MAX_LINES, Tail, shown


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("loading /home/ann/models/unet/model.safetensors", "loading model.safetensors"),
        ("open('/srv/x y/z.png')", "open('x y/z.png')"),
        ("in ~/.cache/hub/x.bin: gone", "in x.bin: gone"),
        ('File "/opt/app/worker/runner.py", line 3', 'File "runner.py", line 3'),
        ("PATH=/usr/local/bin:/usr/bin", "PATH=bin:bin"),
        ("errno 2:/srv/blobs/jobs/x", "errno 2:x"),
        ("in the folder /srv/blobs/", "in the folder "),
        ("see https://example.org/a/b.html", "see https://example.org/a/b.html"),
        ("1/2 of a step, 3 it/s", "1/2 of a step, 3 it/s"),
    ],
)
def test_paths_are_names(raw: str, line: str) -> None:
    assert shown(raw) == [line]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("redis://:hunter2@broker:6379/0", "redis://:***@broker:6379/0"),
        ("postgresql://ann:hunter2@db/x", "postgresql://ann:***@db/x"),
        ("api_key=abcdef more", "api_key=*** more"),
        ("{'token': 'abcdef'}", "{'token': '***'}"),
        ('"password": "abc", "x": 1', '"password": "***", "x": 1'),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g", "AWS_SECRET_ACCESS_KEY=***"),
        ("http://127.0.0.1:8400/v1 answers", "http://127.0.0.1:8400/v1 answers"),
        ("KeyError: 'unet'", "KeyError: 'unet'"),
        ("a token of 75", "a token of 75"),
    ],
)
def test_secrets_are_stars(raw: str, line: str) -> None:
    assert shown(raw) == [line]


def test_a_line_of_deep_brackets_is_a_line_like_another() -> None:
    (line,) = shown("[" * 100_000)
    assert line == "[" * 1000


def test_lines_of_our_own_log_are_sentences() -> None:
    said = {"time": "2026", "level": "warning", "message": "low on memory", "job": "job_1"}
    assert shown(json.dumps(said) + "\n") == ["warning: low on memory"]


def test_a_traceback_keeps_its_lines_and_loses_its_paths() -> None:
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/srv/stillroom/core/training/loop.py", line 9, in step\n'
        "ValueError: no picture in /srv/scratch/job_1/out\n"
    )
    said = {"level": "error", "message": "the recipe failed", "exception": trace}
    assert shown(json.dumps(said)) == [
        "error: the recipe failed",
        "Traceback (most recent call last):",
        '  File "loop.py", line 9, in step',
        "ValueError: no picture in out",
    ]


@pytest.mark.parametrize("raw", ["[1, 2]", '{"a": 1}', "{broken", "12"])
def test_json_that_is_not_ours_is_a_line_like_another(raw: str) -> None:
    assert shown(raw) == [raw]


def test_blank_lines_are_left_out_and_long_ones_cut() -> None:
    assert shown("  \n") == []
    assert [len(line) for line in shown("x" * 5000)] == [1000]


def test_the_last_lines_are_kept() -> None:
    tail = Tail()
    for number in range(MAX_LINES + 10):
        tail.hear(f"{number}\n")
    assert tail.changed
    kept = tail.take()
    assert (len(kept), kept[0], kept[-1]) == (MAX_LINES, "10", str(MAX_LINES + 9))
    assert not tail.changed


def test_another_job_begins_with_no_lines_and_another_attempt_with_those_before() -> None:
    tail = Tail()
    tail.hear("somebody else's\n")
    tail.begin()
    assert (tail.changed, tail.take()) == (False, [])
    tail.begin(["of the attempt before"])
    tail.hear("of this one")
    assert tail.take() == ["of the attempt before", "of this one"]
