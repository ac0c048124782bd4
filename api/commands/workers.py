"""`queue` and `workers`: what waits for devices, and who drives them."""

from typing import Annotated

import typer

from api.answers import Worker
from api.commands.connection import Home, Url, connect
from api.commands.terminal import bytes_text, say, seconds_text, table

WorkerId = Annotated[str, typer.Argument(metavar="ID", help="A worker's id.")]

app = typer.Typer(invoke_without_command=True, help="Workers: list them, hold one back.")


def queue(url: Url = None, home: Home = None) -> None:
    """Your jobs that wait for a device, in their order."""
    with connect(url, home) as client:
        told = client.queue()
    rows = [
        (place["position"], place["job"], _seconds(place["eta_seconds"])) for place in told["items"]
    ]
    table(("place", "job", "begins in"), rows)
    say(f"Of everybody's, {told['depth']} wait for a device and {told['running']} run.")


@app.callback()
def list_workers(context: typer.Context, url: Url = None, home: Home = None) -> None:
    """Workers: list them, hold one back."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, home) as client:
        rows = [_row(worker) for worker in client.list_workers()]
    table(("id", "device", "role", "state", "memory", "resident", "job", "beat", "why"), rows)


@app.command()
def drain(worker_id: WorkerId, url: Url = None, home: Home = None) -> None:
    """Hold a device back: it ends what it runs and takes nothing more."""
    with connect(url, home) as client:
        worker = client.drain_worker(worker_id)
    then = f"`stillroom workers release {worker_id}` lets it take jobs again"
    say(f"{worker['device']} takes no further job; {then}.")


@app.command()
def release(worker_id: WorkerId, url: Url = None, home: Home = None) -> None:
    """Let a device take jobs again, after a drain or out of quarantine."""
    with connect(url, home) as client:
        worker = client.release_worker(worker_id)
    say(f"{worker['device']} takes jobs again.")


def _row(worker: Worker) -> tuple[object, ...]:
    memory_bytes = worker["memory_bytes"]
    return (
        worker["id"],
        worker["device"],
        worker["role"],
        _state(worker),
        memory_bytes and bytes_text(memory_bytes),
        ",".join(worker["resident"]),
        worker["job"] or ("somebody's" if worker["busy"] else None),
        f"{_seconds(worker['beat_age_seconds'])} ago",
        worker["reason"],
    )


def _state(worker: Worker) -> str:
    is_starting = worker["state"] == "open" and not worker["ready"]
    return "starting" if is_starting else worker["state"]


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else seconds_text(seconds)
