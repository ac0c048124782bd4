"""`queue` and `workers`: what waits for devices, and who drives them."""

from typing import Annotated

import typer

from api.answers import Worker
from api.client import Client
from api.commands.terminal import bytes_text, say, seconds_text, table
from api.commands.verb import Told, rows, verb

WorkerId = Annotated[str, typer.Argument(metavar="ID", help="A worker's id.")]

app = typer.Typer(invoke_without_command=True, help="Workers: list them, hold one back.")


@verb
def queue(client: Client) -> Told:
    """Your jobs that wait for a device, in their order."""
    told = client.queue()

    def show() -> None:
        table(
            ("place", "job", "begins in"),
            [
                (place["position"], place["job"], _seconds(place["eta_seconds"]))
                for place in told["items"]
            ],
        )
        say(f"Of everybody's, {told['depth']} wait for a device and {told['running']} run.")

    return Told(told, show)


@app.callback()
@verb
def list_workers(client: Client) -> Told:
    """Workers: list them, hold one back."""
    columns = ("id", "device", "role", "state", "memory", "resident", "job", "beat", "why")
    return rows(list(client.list_workers()), columns, _row)


@app.command()
@verb
def drain(client: Client, worker_id: WorkerId) -> Told:
    """Hold a device back: it ends what it runs and takes nothing more."""
    worker = client.drain_worker(worker_id)
    then = f"`stillroom workers release {worker_id}` lets it take jobs again"
    return Told(worker, lambda: say(f"{worker['device']} takes no further job; {then}."))


@app.command()
@verb
def release(client: Client, worker_id: WorkerId) -> Told:
    """Let a device take jobs again, after a drain or out of quarantine."""
    worker = client.release_worker(worker_id)
    return Told(worker, lambda: say(f"{worker['device']} takes jobs again."))


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
