"""`fine-tune`, `distill`, `train`, `generate`, `jobs` and what is done to one: work for devices."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from api.answers import Forecast, Job
from api.client import Client, ClientError
from api.commands import recipes
from api.commands.connection import Home, Url, connect
from api.commands.download import download_all
from api.commands.follow import follow
from api.commands.mirror import given, takes
from api.commands.terminal import bytes_text, facts, line, say, seconds_text, table
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
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check it and tell what it would take; queue nothing.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Stay until the job has ended.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]

app = typer.Typer(invoke_without_command=True)


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
    spec: dict[str, Any],
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    dry_run: DryRun = False,
    watch: Watch = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Train a LoRA on a dataset; the job's id is printed."""
    about = _about(name, priority, label, after, deadline)
    with connect(url, home) as client:
        _post(client, "fine_tune", spec, about, dry_run=dry_run, stay=watch)


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
    spec: dict[str, Any],
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    dry_run: DryRun = False,
    watch: Watch = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Train a smaller UNet to answer as its teacher does; the job's id is printed."""
    about = _about(name, priority, label, after, deadline)
    with connect(url, home) as client:
        _post(client, "distill", spec, about, dry_run=dry_run, stay=watch)


@takes(GenerateSpec, without={"prompt", "loras", "format"})
def generate(
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
    name: Name = None,
    priority: Priority = None,
    label: Labels = None,
    after: After = None,
    deadline: Deadline = None,
    dry_run: DryRun = False,
    watch: Watch = False,
    to: Annotated[
        Path | None, typer.Option(help="Wait, then put the pictures into this folder.")
    ] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """Draw pictures; the job's id is printed."""
    spec["prompt"] = prompt[0] if len(prompt) == 1 else prompt
    spec |= given(loras=[_lora_use(text) for text in lora or []] or None)
    about, stay = _about(name, priority, label, after, deadline), watch or to is not None
    with connect(url, home) as client:
        _post(client, "generate", spec, about, dry_run=dry_run, stay=stay, to=to)


def train(
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
    dry_run: DryRun = False,
    watch: Watch = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Train as a recipe says; the job's id is printed."""
    kind, spec = recipes.read(recipe)
    spec |= given(dataset=dataset, **{"teacher" if kind == "distill" else "base": base})
    for text in change or []:
        recipes.change(spec, text)
    about = _about(name, priority, label, after, deadline)
    with connect(url, home) as client:
        _post(client, kind, spec, about, dry_run=dry_run, stay=watch)


def extend(
    job_id: JobId,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps after those it has taken.")],
    watch: Watch = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Go on with a finished training in a new job, whose id is printed."""
    with connect(url, home) as client:
        _announce(client, client.extend(job_id, steps), watch)


def retry(job_id: JobId, watch: Watch = False, url: Url = None, home: Home = None) -> None:
    """Do again what ended without success, in a new job, whose id is printed."""
    with connect(url, home) as client:
        _announce(client, client.retry(job_id), watch)


def _post(
    client: Client,
    kind: str,
    spec: dict[str, Any],
    about: dict[str, Any],
    *,
    dry_run: bool,
    stay: bool,
    to: Path | None = None,
) -> None:
    """Submits a job, or only tells what it would take."""
    _take_artifacts(client, kind, spec)
    if dry_run:
        _tell(client.rehearse(kind, spec))
    else:
        _announce(client, client.submit(kind, spec, **about), stay, to)


def _tell(forecast: Forecast) -> None:
    """What a dry run found; the command ends with 1 where no device holds the job."""
    seconds = forecast["seconds"]
    facts(
        [
            ("steps", forecast["steps"]),
            ("takes", "not measured here yet" if seconds is None else seconds_text(seconds)),
            ("told by", forecast["basis"]),
            ("memory", bytes_text(forecast["peak_memory_bytes"])),
            ("disk", bytes_text(forecast["disk_bytes"])),
            ("fits", "yes" if forecast["fits"] else "no device here has the memory"),
        ]
    )
    if not forecast["fits"]:
        raise typer.Exit(1)


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
) -> dict[str, Any]:
    """What stands beside the spec."""
    pairs = [label.partition(":") for label in labels or []]
    return given(
        name=name,
        priority=priority,
        labels={key: value for key, _, value in pairs} or None,
        after=after,
        deadline_seconds=deadline,
    )


def _announce(client: Client, job: Job, stay: bool, to: Path | None = None) -> None:
    line(job["id"])
    if not stay:
        say(f"Queued. See it with `stillroom watch {job['id']}`.")
        return
    job = _stay(client, job["id"])
    if to is not None and job["state"] == "succeeded":
        download_all(client, job["id"], to)
    raise typer.Exit(EXIT_CODES[job["state"]])


@app.callback()
def list_jobs(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="fine_tune, distill or generate.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    url: Url = None,
    home: Home = None,
) -> None:
    """Jobs: the newest, or one."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, home) as client:
        rows = [
            (job["id"], job["kind"], job["state"], _done(job), job["name"], job["created_at"])
            for job in islice(client.list_jobs(kind=kind, state=state), limit)
        ]
    table(("id", "kind", "state", "done", "name", "made"), rows)


def _done(job: Job) -> str:
    return f"{job['progress']['fraction']:.0%}" if job["state"] == "running" else ""


@app.command()
def show(job_id: JobId, url: Url = None, home: Home = None) -> None:
    """One job, and what it made."""
    with connect(url, home) as client:
        job = client.job(job_id)
        artifacts = list(client.artifacts_of(job_id))
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
        table(("artifact", "role", "name"), [(a["id"], a["role"], a["name"]) for a in artifacts])


@app.command()
def spec(
    job_id: JobId,
    to: Annotated[Path | None, typer.Option(help="A file, in place of the terminal.")] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """What a job was asked to do, as a recipe that `train` takes."""
    with connect(url, home) as client:
        text = recipes.write(client.job(job_id))
    if to is None:
        line(text)
    else:
        to.write_text(text + "\n", encoding="utf-8")


def watch(job_id: JobId, url: Url = None, home: Home = None) -> None:
    """Follow a job until it ends: 0 succeeded, 1 failed, 2 cancelled, 3 expired."""
    with connect(url, home) as client:
        job = _stay(client, job_id)
    raise typer.Exit(EXIT_CODES[job["state"]])


def logs(
    job_id: JobId,
    tail: Annotated[int, typer.Option(min=1, max=500, help="So many of the last lines.")] = 100,
    url: Url = None,
    home: Home = None,
) -> None:
    """What a job's runner wrote last."""
    with connect(url, home) as client:
        for each in client.logs(job_id, tail):
            line(each)


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


def cancel(job_id: JobId, url: Url = None, home: Home = None) -> None:
    """End a job: at once where it waits, after the present step where it runs."""
    with connect(url, home) as client:
        job = client.cancel(job_id)
    ended = job["state"] == "cancelled"
    say(f"{job_id} {'is cancelled' if ended else 'ends after its present step'}.")


def pause(job_id: JobId, url: Url = None, home: Home = None) -> None:
    """Take a job out of the queue, or off its device after this step; a training is saved."""
    with connect(url, home) as client:
        job = client.pause(job_id)
    now = "is paused" if job["state"] == "paused" else "pauses after its present step"
    say(f"{job_id} {now}; `stillroom resume {job_id}` lets it go on.")


def resume(job_id: JobId, url: Url = None, home: Home = None) -> None:
    """Let a paused job go on from where it was saved."""
    with connect(url, home) as client:
        job = client.resume(job_id)
    say(f"{job_id} is {job['state']}.")
