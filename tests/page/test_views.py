"""Each view in a real browser, with rows of every sort behind a real API."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Response, expect

from api.client import Client
from core.layouts import SSD_1B
from core.specs import AnySpec, DistillSpec, FineTuneSpec, GenerateSpec
from tests.api.live import Live
from tests.page.conftest import PROMPT, Made, Visit, user_key
from tests.support import loras, pictures

MAX_FIRST_LOAD_BYTES = 100_000


def test_the_first_load_is_small(visitor: Callable[..., Visit], live: Live, made: Made) -> None:
    visit = visitor(live.url)
    answers: list[Response] = []
    visit.page.on("response", lambda answer: answers.append(answer))
    visit.sign_in(live.key)
    visit.page.get_by_role("listitem").first.wait_for()
    paths = [answer.url.removeprefix(live.url) for answer in answers]
    assert "/page/views/jobs.js" in paths
    assert not any("new-job" in path or "openapi" in path for path in paths)
    assert sum(len(answer.body()) for answer in answers) < MAX_FIRST_LOAD_BYTES


def test_jobs(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    row = page.get_by_role("listitem").filter(has_text="robot, longer")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("100 of 300")
    page.get_by_label("State").select_option("succeeded")
    expect(row).to_have_count(0)
    expect(page.get_by_role("listitem").filter(has_text=PROMPT)).to_contain_text("succeeded")
    page.get_by_label("Kind").select_option("distill")
    expect(page.get_by_text("No job is like that.")).to_be_visible()


def test_a_job(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    visit.open(f"jobs/{made.trained}", "robot")
    curve = page.locator("loss-curve svg")
    expect(curve).to_have_attribute("aria-label", re.compile("at step 300"))
    lines = page.locator("loss-curve polyline")
    expect(lines).to_have_count(2)
    page.get_by_label("feature").check()
    expect(lines).to_have_count(4)
    frames = page.locator("film-strip button")
    expect(frames).to_have_text(["step 100", "step 200", "step 300"])
    frames.first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("img")).to_have_js_property("naturalWidth", 64)
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".facts")).to_contain_text("200")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("link", name="Use these settings").click()
    expect(page.get_by_label("Subject in words")).to_have_value(PROMPT)
    expect(page.get_by_label("Steps", exact=True).first).to_have_value("300")


def test_a_running_job_is_told_to_stop(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    visit.open(f"jobs/{made.running}", "robot, longer")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("ends its present step first")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(page.locator(".standing")).to_contain_text("running")


def test_a_waiting_job_is_cancelled_and_tried_again(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    with Client(live.url, live.key) as client:
        job = client.generate({"base": "nano-sdxl", "prompt": PROMPT}, name="not now")
    visit.open(f"jobs/{job['id']}", "not now")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".standing")).to_contain_text("cancelled")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".standing")).to_contain_text("in the queue")
    expect(page.get_by_role("link", name=job["id"])).to_be_visible()


def test_datasets(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.open("datasets", "Datasets")
    row = page.get_by_role("listitem").filter(has_text="discs")
    expect(row).to_contain_text("2 of 3 pictures have no caption")
    good, bad = pictures.write(tmp_path, 2)
    bad.write_bytes(b"no picture")
    page.get_by_label("Name of a new one").fill("mine")
    page.get_by_label("Choose pictures").set_input_files([good, bad])
    page.get_by_role("heading", name="mine").wait_for()
    expect(page.locator(".uploads li").filter(has_text="0.png")).to_contain_text("there")
    expect(page.locator(".uploads [data-mood=bad]")).to_contain_text("1.png")
    expect(page.locator(".card")).to_have_count(1)


def test_dropped_files_are_taken(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.open("datasets", "Datasets")
    (path,) = pictures.write(tmp_path, 1)
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            const pixels = new Uint8Array(bytes);
            transfer.items.add(new File([pixels], "dropped.png", { type: "image/png" }));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    page.locator(".drop-zone").dispatch_event("drop", {"dataTransfer": transfer})
    page.get_by_role("heading", name="dropped").wait_for()
    expect(page.locator(".card")).to_contain_text("dropped.png")


def test_captions_are_edited_in_place(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    visit.open(f"datasets/{made.discs}", "discs")
    card = page.locator(".card").filter(has_text="1.png")
    expect(card.locator(".hint")).to_contain_text("1.png has 64 x 64 pixels")
    expect(card.locator(".problem")).to_contain_text("1.png has no caption")
    expect(card.locator("canvas")).to_have_js_property("width", 64)
    card.get_by_label("Caption of 1.png").fill("a disc at noon")
    page.keyboard.press("Tab")
    expect(card.locator(".problem")).to_have_count(0)
    with Client(live.url, live.key) as client:
        captions = {each["filename"]: each["caption"] for each in client.list_images(made.discs)}
    assert captions["1.png"] == "a disc at noon"


def test_a_new_job_says_what_it_takes_and_what_is_wrong(visit: Visit, made: Made) -> None:
    page = visit.page
    visit.open("new/fine_tune", "New job")
    told = page.locator("estimate-box")
    expect(told).to_contain_text("To be filled in: Dataset.")
    page.get_by_label("Dataset").select_option(made.robot)
    page.get_by_label("Subject in words").fill(PROMPT)
    page.get_by_label("Steps", exact=True).first.fill("40")
    expect(page.get_by_role("button", name="Start training: 40 steps")).to_be_visible()
    expect(told).to_contain_text("fits a device here")
    page.get_by_text("LoRA", exact=True).first.click()
    rank = page.get_by_label("Rank")
    rank.fill("0")
    problem = page.locator("[data-pointer='/spec/lora/rank'] > .problem")
    expect(problem).to_contain_text("greater than or equal to 1")
    expect(rank).to_have_attribute("aria-invalid", "true")
    rank.fill("4")
    expect(problem).to_be_empty()
    page.get_by_label("Base model").select_option("sdxl")
    expect(told).to_contain_text("stillroom models pull sdxl")


@pytest.mark.parametrize("spec", [FineTuneSpec, DistillSpec, GenerateSpec])
def test_every_field_that_is_built_can_be_filled_in(spec: type[AnySpec], visit: Visit) -> None:
    visit.open(f"new/{spec.kind}", "New job")
    visit.page.locator("spec-form .field").first.wait_for()
    places = visit.page.locator("spec-form [data-pointer]").all()
    shown = {place.get_attribute("data-pointer") for place in places}
    properties = spec.model_json_schema()["properties"]
    built = {name for name, told in properties.items() if told.get("type") != "null"}
    assert shown >= {f"/spec/{name}" for name in built}


def test_a_captioned_dataset_is_distilled_with(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    visit.open(f"new/distill?dataset={made.discs}", "New job")
    expect(page.get_by_label("Teacher")).to_have_value("nano-sdxl")
    expect(page.get_by_label("Dataset")).to_have_value(made.discs)
    expect(page.get_by_label("Layout")).to_be_visible()


def test_what_was_asked_is_what_is_sent(visit: Visit, made: Made) -> None:
    page = visit.page
    visit.open(f"new/generate?lora={made.lora}", "New job")
    page.get_by_label("Prompt needed").fill("a red circle\na blue box")
    page.get_by_label("Weight as a number").fill("0.5")
    expect(page.get_by_label("Weight", exact=True)).to_have_value("0.5")
    with page.expect_request(lambda request: request.url.endswith("/v1/jobs")) as asked:
        page.get_by_role("button", name="Draw 2 pictures").click()
    sent = json.loads(asked.value.post_data or "")
    assert sent["spec"]["prompt"] == ["a red circle", "a blue box"]
    assert sent["spec"]["loras"] == [{"artifact": made.lora, "weight": 0.5}]
    assert asked.value.headers["idempotency-key"]
    expect(page.locator("drawn-here")).to_contain_text("in the queue")


def test_gallery(visit: Visit, made: Made) -> None:
    page = visit.page
    visit.open("gallery", "Gallery")
    boxes = page.get_by_role("checkbox", name=re.compile("Compare"))
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare these two").click()
    slider = page.get_by_label("Where the right picture begins")
    slider.fill("30")
    expect(page.locator(".over")).to_have_css("clip-path", "inset(0px 0px 0px 30%)")
    page.keyboard.press("Escape")
    page.locator(".frame").last.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("weight 0.8")
    expect(dialog).to_contain_text("12")
    dialog.get_by_role("link", name="Use these settings").click()
    expect(page.get_by_label("Prompt needed")).to_have_value(PROMPT)
    expect(page.get_by_label("Seed")).to_have_value("104")
    expect(page.get_by_label("Weight as a number")).to_have_value("0.8")


def test_models_and_loras(visit: Visit, made: Made, tmp_path: Path) -> None:
    page = visit.page
    visit.open("models", "Models and LoRAs")
    expect(page.get_by_role("row").filter(has_text="nano-ssd-1b")).to_contain_text("yes")
    row = page.locator(".files > li").filter(has_text="robot.safetensors")
    expect(row).to_contain_text("sdxl · kohya")
    row.get_by_text("Where it is used").click()
    expect(row).to_contain_text(f"{PROMPT}, weight 0.8")
    path = tmp_path / "brought.safetensors"
    path.write_bytes(loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(SSD_1B), 2)))
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nothing")
    page.get_by_label("Import LoRAs").set_input_files([path, wrong])
    new = page.locator(".files > li").filter(has_text="brought")
    expect(new).to_contain_text("ssd-1b")
    expect(page.locator(".uploads [data-mood=bad]")).to_contain_text("wrong.safetensors")
    new.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("mine")
    page.keyboard.press("Enter")
    renamed = page.locator(".files > li").filter(has_text="mine")
    renamed.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(renamed).to_have_count(0)


def test_workers(visit: Visit) -> None:
    page = visit.page
    visit.open("workers", "Workers")
    card = page.locator(".worker").filter(has_text="H100")
    expect(card).to_contain_text("80 GiB")
    card.get_by_role("button", name="Drain").click()
    expect(card.locator(".state")).to_have_text("drained")
    card.get_by_role("button", name="Release").click()
    expect(card.locator(".state")).to_have_text("idle")


def test_keys(visit: Visit, live: Live) -> None:
    page = visit.page
    visit.open("keys", "Keys")
    page.get_by_label("Name").fill("for ann")
    page.get_by_label("Whose rows it sees").fill("ann")
    page.get_by_role("button", name="Create key").click()
    shown = page.get_by_role("dialog").get_by_label("The key")
    expect(shown).to_have_value(re.compile("^stillroom_"))
    with Client(live.url, shown.input_value()) as ann:
        assert list(ann.list_jobs()) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete for ann").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("for ann")).to_have_count(0)


def test_keys_are_not_for_everybody(visitor: Callable[..., Visit], live: Live, made: Made) -> None:
    visit = visitor(live.url)
    visit.sign_in(user_key(live, "read", "write"))
    visit.open("keys", "Keys")
    expect(visit.page.get_by_text("ask yours, or sign in with an admin key")).to_be_visible()


def test_a_new_owner_is_told_what_to_do(visitor: Callable[..., Visit], live: Live) -> None:
    visit = visitor(live.url)
    visit.sign_in(user_key(live, "read", "write"))
    expect(visit.page.get_by_role("link", name="Add pictures")).to_be_visible()


def test_the_key_leaves_the_address_at_once(
    visitor: Callable[..., Visit], live: Live, made: Made
) -> None:
    visit = visitor(live.url)
    visit.sign_in(live.key)
    assert visit.page.url == f"{live.url}/#/jobs"
    kept = "[sessionStorage.getItem('stillroom.key'), localStorage.getItem('stillroom.key')]"
    assert visit.page.evaluate(kept) == [live.key, None]


def test_a_refused_key_is_asked_for_again(
    visitor: Callable[..., Visit], live: Live, made: Made
) -> None:
    visit = visitor(live.url)
    page = visit.page
    page.goto(live.url)
    _give(page, "stillroom_wrong", always=False)
    expect(page.get_by_role("alert")).not_to_be_empty()
    _give(page, live.key, always=True)
    page.get_by_role("listitem").first.wait_for()
    page.reload()
    page.get_by_role("listitem").first.wait_for()
    assert page.evaluate("localStorage.getItem('stillroom.key')") == live.key


def _give(page: Page, key: str, *, always: bool) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill(key)
    dialog.get_by_label("Keep me signed in").set_checked(always)
    dialog.get_by_role("button", name="Sign in").click()


def test_the_keyboard_goes_everywhere(visit: Visit, made: Made) -> None:
    page = visit.page
    page.get_by_role("listitem").first.wait_for()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Gallery").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Gallery").wait_for()
    page.locator(".frame").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".frame").first).to_be_focused()


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "../../etc", "💧‮evil"])
def test_names_are_text_whatever_they_say(name: str, visit: Visit, live: Live) -> None:
    with Client(live.url, live.key) as client:
        id = client.create_dataset(name)["id"]
    visit.open("datasets", "Datasets")
    expect(visit.page.locator(".datasets strong").first).to_have_text(name)
    with Client(live.url, live.key) as client:
        client.delete_dataset(id)
