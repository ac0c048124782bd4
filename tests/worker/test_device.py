"""Devices as people write them, and the variables that pin a process to one."""

import pytest

from worker.device import Device, parse, parse_pinned

CARDS = ["GPU-aaa", "GPU-bbb", "GPU-ccc"]


def list_cards() -> list[str]:
    return CARDS


def test_auto_takes_every_card() -> None:
    names = [(device.name, device.uuid) for device in parse("auto", list_cards)]
    assert names == [("cuda:0", "GPU-aaa"), ("cuda:1", "GPU-bbb"), ("cuda:2", "GPU-ccc")]


def test_auto_without_cards_is_the_cpu() -> None:
    assert parse("auto", list) == [Device("cpu")]


def test_roles() -> None:
    assert parse("cuda:0=generate, cuda:2=train,cuda:1", list_cards) == [
        Device("cuda:0", "generate", "GPU-aaa"),
        Device("cuda:2", "train", "GPU-ccc"),
        Device("cuda:1", "any", "GPU-bbb"),
    ]


def test_the_cpu_may_be_shared_by_names_of_their_own() -> None:
    assert parse("cpu,cpu=train") == [Device("cpu"), Device("cpu:1", "train")]
    assert parse("cpu:4") == [Device("cpu:4")]
    assert Device("cpu:1").is_cpu


@pytest.mark.parametrize(
    ("devices", "match"),
    [
        ("gpu", "'gpu' is no device"),
        ("cuda:x", "'cuda:x' is no device"),
        ("cuda:3", "cuda:3 is not here: the driver lists 3"),
        ("cuda:0=paint", "'paint' in 'cuda:0=paint' is no role"),
        ("cuda:0,cuda:0=train", "cuda:0 is named twice"),
        ("", "'' is no device"),
    ],
)
def test_what_cannot_be_meant_is_said(devices: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse(devices, list_cards)


def test_a_pinned_process_sees_one_card_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Device("cuda:1", "train", "GPU-bbb").environment()
    assert environment == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-bbb",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "STILLROOM_DEVICE": "cuda:1=train",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parse_pinned("cuda:1=train") == Device("cuda:1", "train", "GPU-bbb")


def test_a_process_on_the_cpu_sees_no_card() -> None:
    assert Device("cpu").environment()["CUDA_VISIBLE_DEVICES"] == ""
