"""/openapi.json: what the routes say of themselves, plus the specs and the refusals."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.codes import CODES
from api.errors import MEDIA_TYPE
from api.schemas import ProblemRead
from core.specs import SPECS

_SCHEMAS = "#/components/schemas/{model}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS.format(model=ProblemRead.__name__)}}}
_OPEN = ("/healthz", "/readyz")
"""Without a key."""
_ANY = (HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
_KEYED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_BODIED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_OF_PATH: dict[tuple[str, str], tuple[HTTPStatus, ...]] = {
    ("post", "/v1/jobs"): (
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_MANY_REQUESTS,
    ),
    ("post", "/v1/jobs/{job_id}/cancel"): (HTTPStatus.CONFLICT,),
    ("get", "/v1/jobs/{job_id}/events"): (HTTPStatus.NOT_ACCEPTABLE,),
    ("post", "/v1/datasets/{dataset_id}/images"): (HTTPStatus.CONFLICT,),
    ("get", "/v1/datasets/{dataset_id}/images/{image_id}"): (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ),
    ("get", "/v1/artifacts/{artifact_id}/content"): (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,),
    ("get", "/v1/artifacts/{artifact_id}/files/{path}"): (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ),
}


def install(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do this


def describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=f"{app.description}\n\n{_codes()}",
        routes=app.routes,
    )
    schemas = document["components"]["schemas"]
    _, models = models_json_schema(
        [(model, "validation") for model in SPECS.values()] + [(ProblemRead, "serialization")],
        ref_template=_SCHEMAS,
    )
    schemas.update(models["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_refusals(operation, method, path)
    return document


def _add_refusals(operation: dict[str, Any], method: str, path: str) -> None:
    responses = operation["responses"]
    takes_values = responses.pop("422", None) is not None
    for status in sorted({*_statuses(operation, method, path, takes_values)}):
        responses[str(status.value)] = {"description": status.phrase, "content": _PROBLEM}


def _statuses(
    operation: dict[str, Any], method: str, path: str, takes_values: bool
) -> list[HTTPStatus]:
    statuses = [*_ANY, *_OF_PATH.get((method, path), ())]
    if path not in _OPEN:
        statuses += _KEYED
    if path != "/healthz":
        statuses.append(HTTPStatus.SERVICE_UNAVAILABLE)
    if "{" in path:
        statuses.append(HTTPStatus.NOT_FOUND)
    if "requestBody" in operation:
        statuses += _BODIED
    elif takes_values:
        statuses.append(HTTPStatus.UNPROCESSABLE_ENTITY)
    return statuses


def _codes() -> str:
    return "\n".join(["Codes:", "", *(f"- `{code}`: {what}" for code, what in CODES.items())])
