"""A home that looks lived in: trained, drawn, and some of it still under way."""

from pathlib import Path

from api.answers import Job
from api.client import Client
from api.demo import subject
from tests.support import pictures

PROMPT = subject.PROMPT
LORA_STEPS = 200
DRAWN = (
    ("on a green background", 1.0),
    ("on a yellow background", 1.0),
    ("on a blue background", 0.6),
)
SUBJECTS = ("a red apple on a white background", "a panda on a green background", "a rocket")
CAPTIONS = ("a disc at dusk", "a disc at noon", "a disc before rain")


def furnish(client: Client, folder: Path) -> None:
    """Takes a minute or two of a CPU."""
    dataset = client.create_dataset("robot")["id"]
    client.upload(dataset, subject.save_pictures(folder / "robot"))
    _captioned(client, folder / "discs")
    trained = _done(client, _train(client, dataset, LORA_STEPS, name="robot"))
    assert trained["result"]
    lora = trained["result"]["lora"]
    _draw(client, PROMPT, None)
    for prompt in SUBJECTS:
        _draw(client, prompt, None)
    for where, weight in DRAWN:
        _draw(client, f"{PROMPT} {where}", {"artifact": lora, "weight": weight})


def keep_busy(client: Client) -> None:
    """A training runs, and another waits."""
    dataset = next(each["id"] for each in client.list_datasets() if each["name"] == "robot")
    _train(client, dataset, 5_000, name="robot, overnight")
    _train(client, dataset, 400, name="robot at rank 16", lora={"rank": 16})


def _captioned(client: Client, folder: Path) -> None:
    dataset = client.create_dataset("discs", kind="captioned")["id"]
    for path, caption in zip(pictures.write(folder, 4), CAPTIONS, strict=False):
        path.with_suffix(".txt").write_text(caption)
    client.upload(dataset, [folder])


def _train(client: Client, dataset: str, steps: int, *, name: str, **spec: object) -> Job:
    whole = {
        "base": "nano-sdxl",
        "dataset": dataset,
        "instance_prompt": PROMPT,
        "steps": steps,
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "seed": 104,
        "sample": {"prompts": [PROMPT], "every": max(1, steps // 8), "steps": 20},
    }
    return client.fine_tune(whole | spec, name=name)


def _draw(client: Client, prompt: str, lora: dict[str, object] | None) -> None:
    spec = {"base": "nano-sdxl", "prompt": prompt, "seed": 104, "images": 2}
    _done(client, client.generate(spec | {"loras": [lora] if lora else []}))


def _done(client: Client, job: Job) -> Job:
    ended = client.wait(job["id"])
    assert ended["state"] == "succeeded", ended["error"]
    return ended
