"""Links: artifacts for those who have no key."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.deps import DatabaseDep, ReaderDep, SettingsDep, StoreDep
from api.downloads import BYTES, WantedDep
from api.files import answer
from api.schemas.artifacts import LinkCreate, LinkRead
from core.artifacts import links

PATH = "/links/{artifact_id}"
router = APIRouter(tags=["artifacts"])


@router.post("/v1/artifacts/{artifact_id}/link")
def make_link(
    request: Request,
    response: Response,
    artifact_id: str,
    body: LinkCreate,
    caller: ReaderDep,
    settings: SettingsDep,
    database: DatabaseDep,
) -> LinkRead:
    """A link to the bytes, which needs no key. It ends with its time, with the artifact, and with
    the key that asked for it."""
    with database.read() as session:
        token, until = links.sign(
            session, caller.owner, caller.key_id, artifact_id, seconds=body.expires_in
        )
    # in the query, which no log of ours holds
    place = f"{PATH.format(artifact_id=artifact_id)}?token={token}"
    response.headers["Cache-Control"] = "no-store"
    return LinkRead(url=f"{_address(request, settings.public_url)}{place}", expires_at=until)


@router.head(PATH, include_in_schema=False)
@router.get(PATH, response_class=Response, responses=BYTES)
def follow_link(
    artifact_id: str,
    database: DatabaseDep,
    store: StoreDep,
    wanted: WantedDep,
    token: Annotated[str, Query(description="As the link has it.")] = "",
) -> Response:
    """What `/content` answers, always to be saved and never shown."""
    with database.read() as session:
        artifact = links.opened(session, artifact_id, token)
    response = answer(store, artifact, wanted, may_show=False)
    response.headers["Referrer-Policy"] = "no-referrer"  # the address is the key
    return response


def _address(request: Request, public_url: str) -> str:
    """Of this server, as the client knows it: its `Host` was looked at before."""
    return (public_url or str(request.base_url)).rstrip("/")
