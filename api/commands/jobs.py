"""`fine-tune`, `distill`, `train`, `generate`, `jobs` and what is done to one: work for devices."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from api.answers import Forecast, Job
from api.client import Client, ClientError
from api.commands import recipes
from api.commands.download import download_all
from api.commands.follow import follow
from api.commands.mirror import given, takes
from api.commands.terminal import bytes_text, facts, line, say, seconds_text, table
from api.commands.verb import Told, gone, rows, verb
from api.uploads import name_of
from core.specs import (
    DistillSpec,
    FineTuneSpec,
    GenerateSpec,
    LoraSpec,
    LossSpec,
    PriorSpec,
    SampleSpec,
    StudentSpec,
)

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 2, "expired": 3}

Name = Annotated[str | None, typer.Option(help="What to call the job.")]
Priority = Annotated[int | None, typer.Option(help="-100 to 100, higher first.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="KEY:VALUE; repeatable.")]
After = Annotated[
    str | None,
    typer.Option(metavar="JOB", help="Begin once that job has succeeded.", show_default=False),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="From now: not begun by then, it expires.", show_default=False
    ),
]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Is told of the job's changes.", show_default=False),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check it and tell what it would take; queue nothing.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Stay until the job has ended.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]

app = typer.Typer(invoke_without_command=True)


@verb
@takes(
    FineTuneSpec,
    inside={
        "lora": ("", LoraSpec),
        "prior": ("prior_", PriorSpec),
        "sample": ("sample_", SampleSpec),
    },
    called={"sample_prompts": "sample_prompt"},
)
def fine_tune(
    client: Client,
    spec: dict[str, Any],
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    webhook: Webhook = None,
    dry_run: DryRun = False,
    watch: Watch = False,
) -> Told:
    """Train a LoRA on a dataset; the job's id is printed."""
    about = _about(name, priority, label, after, deadline, webhook)
    return _post(client, "fine_tune", spec, about, dry_run=dry_run, stay=watch)


@verb
@takes(
    DistillSpec,
    inside={
        "student": ("student_", StudentSpec),
        "loss": ("loss_", LossSpec),
        "sample": ("sample_", SampleSpec),
    },
    called={"sample_prompts": "sample_prompt", "student_layers": "student_layer"},
)
def distill(
    client: Client,
    spec: dict[str, Any],
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    webhook: Webhook = None,
    dry_run: DryRun = False,
    watch: Watch = False,
) -> Told:
    """Train a smaller UNet to answer as its teacher does; the job's id is printed."""
    about = _about(name, priority, label, after, deadline, webhook)
    return _post(client, "distill", spec, about, dry_run=dry_run, stay=watch)


@verb
@takes(GenerateSpec, without={"prompt", "loras", "image"})
def generate(
    client: Client,
    spec: dict[str, Any],
    prompt: Annotated[list[str], typer.Argument(help="What to draw; several make several.")],
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID[:WEIGHT]",
            help="A LoRA artifact, or the job that makes it; repeatable.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A picture to begin with; it is sent to a dataset of its own."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How far to go from that picture, above 0 to 1. Default 0.6."),
    ] = None,
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    webhook: Webhook = None,
    dry_run: DryRun = False,
    watch: Watch = False,
    to: Annotated[
        Path | None, typer.Option(help="Wait, then put the pictures into this folder.")
    ] = None,
) -> Told:
    """Draw pictures; the job's id is printed."""
    spec["prompt"] = prompt[0] if len(prompt) == 1 else prompt
    spec |= given(loras=[_lora_use(text) for text in lora or []] or None)
    about, stay = _about(name, priority, label, after, deadline, webhook), watch or to is not None
    if strength is not None and start is None:
        raise typer.BadParameter("--strength says how far to go from the picture of --from.")
    if start is None:
        return _post(client, "generate", spec, about, dry_run=dry_run, stay=stay, to=to)
    with _sent(client, start, keep=not dry_run) as image:
        spec["image"] = image | given(strength=strength)
        return _post(client, "generate", spec, about, dry_run=dry_run, stay=stay, to=to)


@verb
def train(
    client: Client,
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe of ours by name, or a file like those that `jobs spec` writes."
        ),
    ],
    dataset: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    base: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=JSON",
            help="Another value, as in lora.rank=16; repeatable.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    webhook: Webhook = None,
    dry_run: DryRun = False,
    watch: Watch = False,
) -> Told:
    """Train as a recipe says; the job's id is printed."""
    kind, spec = recipes.read(recipe)
    spec |= given(dataset=dataset, **{"teacher" if kind == "distill" else "base": base})
    for text in change or []:
        recipes.change(spec, text)
    about = _about(name, priority, label, after, deadline, webhook)
    return _post(client, kind, spec, about, dry_run=dry_run, stay=watch)


@contextmanager
def _sent(client: Client, picture: Path, *, keep: bool) -> Iterator[dict[str, str]]:
    """Where the server has it: in a dataset of its own, which goes again unless a job was made of
    it and it is to be kept."""
    if not picture.is_file():
        raise ClientError(f"There is no picture {picture} for --from.")
    dataset, needed = client.create_dataset(name_of(Path(picture.name)))["id"], False
    try:
        yield {"dataset": dataset, "image": _only(client, dataset, picture)}
        needed = keep
    finally:
        if not needed:
            with suppress(ClientError):  # the server is away, or made the job all the same
                client.delete_dataset(dataset)


def _only(client: Client, dataset: str, picture: Path) -> str:
    items = client.upload(dataset, [picture])["items"]
    images = [item["id"] for item in items if item["id"] is not None]
    if len(images) == 1:
        return images[0]
    problems = [flaw["detail"] for item in items for flaw in item["problems"]]
    raise ClientError((problems or [f"{picture} is no single picture, as --from takes one."])[0])


@verb
def extend(
    client: Client,
    job_id: JobId,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps after those it has taken.")],
    watch: Watch = False,
) -> Told:
    """Go on with a finished training in a new job, whose id is printed."""
    return _announced(client, client.extend(job_id, steps), watch)


@verb
def retry(client: Client, job_id: JobId, watch: Watch = False) -> Told:
    """Do again what ended without success, in a new job, whose id is printed."""
    return _announced(client, client.retry(job_id), watch)


def _post(
    client: Client,
    kind: str,
    spec: dict[str, Any],
    about: dict[str, Any],
    *,
    dry_run: bool,
    stay: bool,
    to: Path | None = None,
) -> Told:
    """Submits a job, or only tells what it would take."""
    _take_artifacts(client, kind, spec)
    if dry_run:
        return _foretold(client.rehearse(kind, spec))
    return _announced(client, client.submit(kind, spec, **about), stay, to)


def _foretold(forecast: Forecast) -> Told:
    """What a dry run found; the command ends with 1 where no device holds the job."""
    seconds = forecast["seconds"]
    told = [
        ("steps", forecast["steps"]),
        ("takes", "not measured here yet" if seconds is None else seconds_text(seconds)),
        ("told by", forecast["basis"]),
        ("memory", bytes_text(forecast["peak_memory_bytes"])),
        ("disk", bytes_text(forecast["disk_bytes"])),
        ("fits", "yes" if forecast["fits"] else "no device here has the memory"),
    ]
    return Told(forecast, lambda: facts(told), code=0 if forecast["fits"] else 1)


def _lora_use(text: str) -> dict[str, Any]:
    """``art_1:0.8`` -> ``{"artifact": "art_1", "weight": 0.8}``; a job is named as one, and may not
    have ended yet."""
    name, _, weight = text.partition(":")
    source = "job" if name.startswith("job_") else "artifact"
    return {source: name} | given(weight=_number(weight, text) if weight else None)


def _take_artifacts(client: Client, kind: str, spec: dict[str, Any]) -> None:
    """Puts what a job made in the place of its id, wherever a spec may name a UNet or a LoRA."""
    start = "unet" if kind == "distill" else "lora"
    for part, field, role in (
        (spec, "base", "unet"),
        (spec, "init_from", start),
        (spec.get("student") or {}, "weights", "unet"),
    ):
        if str(part.get(field)).startswith("job_"):
            part[field] = _made_by(client.job(part[field]), role)


def _made_by(job: Job, role: str) -> str:
    made = (job["result"] or {}).get(role)
    if made is None:
        what = "LoRA" if role == "lora" else "UNet"
        raise ClientError(
            f"{job['id']} has made no {what}: it is {job['state']}. Its progress is at "
            f"`stillroom watch {job['id']}`."
        )
    return str(made)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{option!r}: {text!r} is no weight; 0.8 is one.") from None


def _about(
    name: str | None,
    priority: int | None,
    labels: list[str] | None,
    after: str | None,
    deadline: float | None,
    webhook: str | None,
) -> dict[str, Any]:
    """What stands beside the spec."""
    pairs = [label.partition(":") for label in labels or []]
    return given(
        name=name,
        priority=priority,
        labels={key: value for key, _, value in pairs} or None,
        after=after,
        deadline_seconds=deadline,
        webhook=webhook,
    )


def _announced(client: Client, job: Job, stay: bool, to: Path | None = None) -> Told:
    """The job's id; then what became of it, where somebody stays for that."""
    say(f"Queued. See it with `stillroom watch {job['id']}`.")
    then = partial(_ended, client, job["id"], to) if stay else None
    return Told(job, lambda: line(job["id"]), then=then)


def _ended(client: Client, job_id: str, to: Path | None) -> Told:
    """What became of a job, with its pictures where they were asked for."""
    ended = _stay(client, job_id)
    wanted = to is not None and ended["state"] == "succeeded"
    fetched = download_all(client, job_id, to) if wanted and to else []

    def show() -> None:
        for each in fetched:
            line(each["path"])

    return Told({**ended, "files": fetched}, show, code=EXIT_CODES[ended["state"]])


@app.callback()
@verb
def list_jobs(
    client: Client,
    kind: Annotated[str | None, typer.Option(help="fine_tune, distill or generate.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
) -> Told:
    """Jobs: the newest, or one."""
    found = list(islice(client.list_jobs(kind=kind, state=state), limit))
    return rows(found, ("id", "kind", "state", "done", "name", "made"), _row)


def _row(job: Job) -> tuple[object, ...]:
    return (job["id"], job["kind"], job["state"], _done(job), job["name"], job["created_at"])


def _done(job: Job) -> str:
    return f"{job['progress']['fraction']:.0%}" if job["state"] == "running" else ""


@app.command()
@verb
def show(client: Client, job_id: JobId) -> Told:
    """One job, and what it made."""
    job = client.job(job_id)
    artifacts = list(client.artifacts_of(job_id))

    def tell() -> None:
        facts(
            [
                ("id", job["id"]),
                ("name", job["name"]),
                ("kind", job["kind"]),
                ("state", job["state"]),
                ("done", _done(job)),
                ("error", job["error"] and job["error"]["detail"]),
                ("device", job["device"]),
                ("spec sha256", recipes.sha256_of(job)),
                *((f"  {field}", value) for field, value in job["spec"].items()),
                ("made", job["created_at"]),
                ("finished", job["finished_at"]),
            ]
        )
        if artifacts:
            made = [(a["id"], a["role"], a["name"]) for a in artifacts]
            table(("artifact", "role", "name"), made)

    return Told({"job": job, "artifacts": artifacts}, tell)


@app.command()
@verb
def delete(client: Client, job_id: JobId) -> Told:
    """Delete a job that has ended, with all that it made."""
    client.delete_job(job_id)
    return gone(job_id)


@app.command()
@verb
def spec(
    client: Client,
    job_id: JobId,
    to: Annotated[Path | None, typer.Option(help="A file, in place of the terminal.")] = None,
) -> Told:
    """What a job was asked to do, as a recipe that `train` takes."""
    job = client.job(job_id)
    text = recipes.write(job)
    if to is None:
        return Told(job["spec"], lambda: line(text))
    to.write_text(text + "\n", encoding="utf-8")
    return Told(job["spec"], lambda: None)


@verb
def watch(client: Client, job_id: JobId) -> Told:
    """Follow a job until it ends: 0 succeeded, 1 failed, 2 cancelled, 3 expired."""
    job = _stay(client, job_id)
    return Told(job, lambda: None, code=EXIT_CODES[job["state"]])


@verb
def events(
    client: Client,
    job_id: JobId,
    after: Annotated[int, typer.Option(min=0, help="The last number you have seen.")] = 0,
) -> Told:
    """What happened to a job, oldest first."""
    return rows(
        list(client.events(job_id, after)),
        ("seq", "at", "type", "attempt", "what"),
        lambda event: (
            event["seq"],
            event["at"],
            event["type"],
            event["attempt"],
            json.dumps(event["data"], ensure_ascii=False),
        ),
    )


@verb
def metrics(client: Client, job_id: JobId) -> Told:
    """A training's losses and their parts, a row a reading."""
    series = client.metrics(job_id)
    terms = list(series["terms"])
    columns = ("step", "loss", "learning_rate", "seconds_per_step")
    values = [series[name] for name in columns] + [series["terms"][name] for name in terms]
    readings = list(zip(*values, strict=True))
    return Told(series, lambda: table((*columns, *terms), readings))


@verb
def logs(
    client: Client,
    job_id: JobId,
    tail: Annotated[int, typer.Option(min=1, max=500, help="So many of the last lines.")] = 100,
) -> Told:
    """What a job's runner wrote last."""
    lines = client.logs(job_id, tail)
    return Told({"lines": lines}, lambda: line("\n".join(lines)) if lines else None)


def _stay(client: Client, job_id: str) -> Job:
    try:
        job = follow(client, job_id)
    except KeyboardInterrupt:
        say(f"{job_id} goes on without us; `stillroom cancel {job_id}` ends it.")
        raise typer.Exit(130) from None
    say(ending(job))
    return job


def ending(job: Job) -> str:
    """How a job ended, in a sentence."""
    if job["error"]:
        return f"{job['id']} {job['state']}: {job['error']['detail']}"
    if job["state"] == "succeeded":
        return f"{job['id']} succeeded. Fetch what it made: `stillroom download {job['id']}`."
    return f"{job['id']} {job['state']}."


@verb
def cancel(client: Client, job_id: JobId) -> Told:
    """End a job: at once where it waits, after the present step where it runs."""
    job = client.cancel(job_id)
    now = "is cancelled" if job["state"] == "cancelled" else "ends after its present step"
    return Told(job, lambda: say(f"{job_id} {now}."))


@verb
def pause(client: Client, job_id: JobId) -> Told:
    """Take a job out of the queue, or off its device after this step; a training is saved."""
    job = client.pause(job_id)
    now = "is paused" if job["state"] == "paused" else "pauses after its present step"
    return Told(job, lambda: say(f"{job_id} {now}; `stillroom resume {job_id}` lets it go on."))


@verb
def resume(client: Client, job_id: JobId) -> Told:
    """Let a paused job go on from where it was saved."""
    job = client.resume(job_id)
    return Told(job, lambda: say(f"{job_id} is {job['state']}."))
