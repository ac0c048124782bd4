"""`stillroom webhooks`: who is told of changes to jobs, and what came of it."""

from itertools import islice
from typing import Annotated

import typer

from api.answers import Delivery, Webhook
from api.client import Client
from api.commands.terminal import facts, line, say
from api.commands.verb import Told, gone, rows, verb

ENDS = ("job.succeeded", "job.failed", "job.cancelled", "job.expired")

app = typer.Typer(no_args_is_help=True, help="Webhooks: who is told of changes to jobs.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="An id.")]
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="An id.")]


@app.command()
@verb
def create(
    client: Client,
    address: Annotated[str, typer.Argument(metavar="URL", help="Where it is told.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="job.queued, job.running, job.paused, job.succeeded, job.failed, job.cancelled "
            "or job.expired; repeat for several [default: every end of a job].",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> Told:
    """Make a webhook; its id is printed, and its secret, which is shown this once."""
    webhook = client.create_webhook(address, event or ENDS, name=name)

    def show() -> None:
        line(webhook["id"], webhook["secret"])
        say(f"{webhook['id']} is told of {', '.join(webhook['events'])} of jobs that name it.")

    return Told(webhook, show)


@app.command("list")
@verb
def list_webhooks(client: Client) -> Told:
    """All of yours, and how the last delivery of each went."""
    return rows(
        list(client.list_webhooks()),
        ("id", "name", "url", "last"),
        lambda webhook: (webhook["id"], webhook["name"], webhook["url"], _last(webhook)),
    )


def _last(webhook: Webhook) -> str | None:
    return webhook["last_delivery"] and webhook["last_delivery"]["state"]


@app.command()
@verb
def show(client: Client, webhook_id: WebhookId) -> Told:
    """One webhook."""
    webhook = client.webhook(webhook_id)
    last = webhook["last_delivery"]
    told = [
        ("id", webhook["id"]),
        ("name", webhook["name"]),
        ("url", webhook["url"]),
        ("events", " ".join(webhook["events"])),
        ("made", webhook["created_at"]),
        ("last", _last(webhook)),
        ("error", last and last["error"]),
    ]
    return Told(webhook, lambda: facts(told))


@app.command()
@verb
def delete(client: Client, webhook_id: WebhookId) -> Told:
    """End a webhook; jobs that name it tell nobody any more."""
    client.delete_webhook(webhook_id)
    return gone(webhook_id)


@app.command("test")
@verb
def send_test(client: Client, webhook_id: WebhookId) -> Told:
    """Send it a webhook.test; the delivery's id is printed."""
    return _sent(webhook_id, client.test_webhook(webhook_id))


@app.command()
@verb
def deliveries(
    client: Client,
    webhook_id: WebhookId,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
) -> Told:
    """What it was told lately, or could not be."""
    found = list(islice(client.deliveries(webhook_id), limit))
    columns = ("id", "event", "job", "state", "attempts", "status", "next", "error")
    return rows(found, columns, _row)


def _row(delivery: Delivery) -> tuple[object, ...]:
    return (
        delivery["id"],
        delivery["event"],
        delivery["job"],
        delivery["state"],
        delivery["attempts"],
        delivery["status"],
        delivery["next_attempt_at"],
        delivery["error"],
    )


@app.command()
@verb
def redeliver(client: Client, webhook_id: WebhookId, delivery_id: DeliveryId) -> Told:
    """Send a delivery again at once, under the same id."""
    return _sent(webhook_id, client.redeliver(webhook_id, delivery_id))


def _sent(webhook_id: str, delivery: Delivery) -> Told:
    def show() -> None:
        line(delivery["id"])
        say(f"On its way. See it with `stillroom webhooks deliveries {webhook_id}`.")

    return Told(delivery, show)
