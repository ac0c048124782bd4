"""Forms that are filled in from what is there say the same again."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from api.client import Client
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.ids import new_id
from core.owners.service import ADMIN
from tests.api.live import Live
from tests.page.conftest import PROMPT, Made, Visit
from tests.support import pictures, uploads


def test_the_settings_of_a_job_keep_its_method(visit: Visit, live: Live, tmp_path: Path) -> None:
    with Client(live.url, live.key) as client:
        dataset = client.create_dataset("both", kind="captioned")["id"]
        client.upload(dataset, pictures.write(tmp_path, 2))
        spec = {"base": "nano-sdxl", "dataset": dataset, "instance_prompt": PROMPT}
        job = client.fine_tune(spec | {"steps": 7})["id"]
    sent = _rehearsed(visit, f"new/fine_tune?job={job}")
    expect(visit.page.get_by_label("Subject in words")).to_have_value(PROMPT)
    assert (sent["method"], sent["instance_prompt"]) == ("dreambooth", PROMPT)


def test_the_settings_of_a_job_keep_rows_that_are_not_among_the_choices(
    visit: Visit, live: Live, made: Made
) -> None:
    with Client(live.url, live.key) as client:
        spec = {"base": "nano-sdxl", "dataset": made.robot, "instance_prompt": PROMPT}
        job = client.fine_tune(spec)["id"]
    old, brought = new_id("dst"), made.lora  # of kohya's form, which is not offered
    _change_spec(visit.page, job, dataset=old, init_from=brought)
    sent = _rehearsed(visit, f"new/fine_tune?job={job}")
    assert (sent["dataset"], sent["init_from"]) == (old, brought)
    visit.page.unroute_all()


def test_a_picture_to_begin_with_is_there_at_once(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    with Client(live.url, live.key) as client:
        first, *_ = client.list_images(made.robot)
        start = {"dataset": made.robot, "image": first["id"], "strength": 0.5}
        job = client.generate({"base": "nano-sdxl", "prompt": PROMPT, "image": start})["id"]
    held: list[Route] = []
    page.route("**/images?*", lambda route: held.append(route))
    sent = _rehearsed(visit, f"new/generate?job={job}")
    assert sent["image"] == start
    held[0].continue_()
    choice = page.locator("start-image select").nth(1)
    expect(choice.locator("option").filter(has_text=first["filename"])).to_have_count(1)
    expect(choice).to_have_value(first["id"])
    page.get_by_text("A picture to begin with", exact=True).click()
    page.locator("start-image select").first.select_option("")
    expect(choice).to_have_value("")
    page.unroute_all()


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("a dog\nat dusk", "a dog at dusk"),
        (["a dog\n at dusk", "a cat"], ["a dog at dusk", "a cat"]),
    ],
)
def test_a_prompt_of_two_lines_stays_one(
    prompt: Any, same: Any, visit: Visit, live: Live, made: Made
) -> None:
    with Client(live.url, live.key) as client:
        job = client.generate({"base": "nano-sdxl", "prompt": prompt})["id"]
    assert _rehearsed(visit, f"new/generate?job={job}")["prompt"] == same


def test_a_lora_is_drawn_on_the_student_that_it_was_trained_on(
    visit: Visit, live: Live, made: Made
) -> None:
    student = _put(live, "unet", "diffusers", base="nano-sdxl")
    lora = _put(live, "lora", "peft", base=student)
    sent = _rehearsed(visit, f"new/generate?lora={lora}", prompt=PROMPT)
    assert sent["base"] == student
    with Client(live.url, live.key) as client:
        for each in (lora, student):
            client.delete_artifact(each)


@pytest.mark.parametrize(("group", "label"), [(None, "Steps"), ("Name and queue", "Priority")])
def test_what_is_no_number_is_not_taken_for_the_default(
    group: str | None, label: str, visit: Visit, made: Made
) -> None:
    page = visit.page
    visit.open("new/generate", "New job")
    page.get_by_label("Prompt needed").fill(PROMPT)
    if group:
        page.get_by_text(group).click()
    field = page.get_by_label(label, exact=True)
    field.fill("")
    field.press_sequentially("1e")
    expect(page.locator("estimate-box")).to_contain_text(f"To be filled in: {label}.")
    page.locator("form button.primary").click()
    expect(page.locator("aside .problem")).to_have_text(f"To be filled in: {label}.")
    field.fill("12")
    expect(page.locator("estimate-box")).to_contain_text("Memory")


def _rehearsed(visit: Visit, view: str, **filled: str) -> dict[str, Any]:
    """The spec that the form of ``view`` asks about."""
    page = visit.page

    def is_it(request: Any) -> bool:
        return "dry_run" in request.url and ("prompt" not in filled or PROMPT in request.post_data)

    with page.expect_request(is_it) as asked:
        visit.open(view, "New job")
        if "prompt" in filled:
            page.get_by_label("Prompt needed").fill(filled["prompt"])
    spec: dict[str, Any] = json.loads(asked.value.post_data or "")["spec"]
    return spec


def _change_spec(page: Page, job: str, **other: str) -> None:
    """As if it had been sent long ago, with ``other`` in its spec."""

    def change(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        route.fulfill(response=answer, json=told | {"spec": told["spec"] | other})

    page.route(f"**/v1/jobs/{job}", change)


def _put(live: Live, kind: str, format: str, *, base: str) -> str:
    content, key = b"weights", f"test/{new_id('art')}"
    live.app.state.store.put_bytes(key, content)
    with live.app.state.database.write() as session:
        return artifacts.record(
            session,
            owner=ADMIN,
            job_id=None,
            kind=kind,
            role=kind,
            name=f"{kind}.safetensors",
            format=format,
            files=[StoredFile(f"{kind}.safetensors", 7, uploads.sha256(content), key)],
            base=base,
            layout="ssd-1b",
        ).id
