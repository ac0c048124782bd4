"""/openapi.json: what the routes say of themselves, plus specs, refusals, examples and links."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from api.codes import CODES
from api.errors import MEDIA_TYPE
from api.examples import DISTILL, EXAMPLES, FINE_TUNE, GENERATE, IDS, PROBLEMS
from api.schemas.health import ProblemRead
from core.specs import SPECS

_SCHEMAS = "#/components/schemas/{model}"
_PROBLEM = {"$ref": _SCHEMAS.format(model=ProblemRead.__name__)}
_OPEN = ("/healthz", "/readyz", "/links/{artifact_id}")
"""Without a key."""
_ANY = (HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
_KEYED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
_BODIED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_OF_PATH: dict[tuple[str, str], tuple[HTTPStatus, ...]] = {
    ("post", "/v1/jobs"): (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ("post", "/v1/jobs/{job_id}/cancel"): (HTTPStatus.CONFLICT,),
    ("get", "/v1/jobs/{job_id}/events"): (HTTPStatus.NOT_ACCEPTABLE,),
    ("post", "/v1/jobs/{job_id}/retry"): (HTTPStatus.CONFLICT,),
    ("post", "/v1/jobs/{job_id}/extend"): (HTTPStatus.CONFLICT,),
    ("post", "/v1/datasets/{dataset_id}/images"): (HTTPStatus.CONFLICT,),
    ("get", "/v1/datasets/{dataset_id}/images/{image_id}"): (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ),
    ("get", "/v1/artifacts/{artifact_id}/content"): (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,),
    ("get", "/links/{artifact_id}"): (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,),
    ("get", "/v1/artifacts/{artifact_id}/files/{path}"): (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ),
}
_MAKERS = {
    "create_dataset": "dataset_id",
    "submit_job": "job_id",
    "bring_lora": "artifact_id",
    "create_key": "key_id",
    "create_webhook": "webhook_id",
}
"""Operations that make a row, and what other operations call its id."""
_LOCATION = {"Location": {"description": "Of what was made.", "schema": {"type": "string"}}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true` where the same request had made it before.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 0}}
}


def install(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to do this


def operation_id(route: APIRoute) -> str:
    """The function's name: what generated clients call their methods."""
    return route.name


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
    _tell_jobs_apart(schemas)
    operations = list(_operations(document))
    for method, path, operation in operations:
        _add_refusals(operation, method, path)
        _add_headers(operation)
        _illustrate(operation)
    _link([operation for _, _, operation in operations])
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


def _tell_jobs_apart(schemas: dict[str, Any]) -> None:
    """A job's spec is that of its kind: generated clients get a type for each."""
    whole = schemas["JobCreate"]
    variants = {}
    for kind, spec in SPECS.items():
        name = spec.__name__.replace("Spec", "Job")
        own = {
            "kind": {"type": "string", "const": kind},
            "spec": {"$ref": _SCHEMAS.format(model=spec.__name__)},
        }
        schemas[name] = {**whole, "title": name, "properties": {**whole["properties"], **own}}
        variants[kind] = _SCHEMAS.format(model=name)
    schemas["JobCreate"] = {
        "title": whole["title"],
        "oneOf": [{"$ref": variant} for variant in variants.values()],
        "discriminator": {"propertyName": "kind", "mapping": variants},
    }


def _add_refusals(operation: dict[str, Any], method: str, path: str) -> None:
    responses = operation["responses"]
    takes_values = responses.pop("422", None) is not None
    for status in sorted({*_statuses(operation, method, path, takes_values)}):
        content = {MEDIA_TYPE: {"schema": _PROBLEM, "example": _problem(status)}}
        responses[str(status.value)] = {"description": status.phrase, "content": content}


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


def _problem(status: HTTPStatus) -> dict[str, Any]:
    code, detail = PROBLEMS[status]
    return {
        "type": f"/docs#{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "request_id": "req_01k9q41h8v3w5r0t6e2n7x9cbd",
    }


def _add_headers(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    keyed = any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
    if "201" in responses:
        responses["201"]["headers"] = {**_LOCATION, **(_REPLAYED if keyed else {})}
    for status in responses.keys() & {"429", "503"}:
        responses[status]["headers"] = _RETRY_AFTER


def _illustrate(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["name"] in IDS:
            parameter["example"] = IDS[parameter["name"]]
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        told = part.get("content", {}).get("application/json")
        if told:
            told["examples"] = _examples(told["schema"]["$ref"].rpartition("/")[2])


def _examples(schema: str) -> dict[str, Any]:
    """By name; those of a page are made of its rows'."""
    if schema == "JobCreate":
        shown: dict[str, Any] = {str(each["kind"]): each for each in (FINE_TUNE, DISTILL, GENERATE)}
    elif schema.startswith("Page_"):
        row = EXAMPLES[schema.removeprefix("Page_").removesuffix("_")]
        shown = {"page": {"items": [row], "next_cursor": None}}
    else:
        shown = {"example": EXAMPLES[schema]}
    return {name: {"value": value} for name, value in shown.items()}


def _link(operations: list[dict[str, Any]]) -> None:
    """Says which operations take the id of what an operation made."""
    for maker in operations:
        id = _MAKERS.get(maker["operationId"])
        if id:
            maker["responses"]["201"]["links"] = {
                taker["operationId"]: {
                    "operationId": taker["operationId"],
                    "parameters": {id: "$response.body#/id"},
                }
                for taker in operations
                if [each["name"] for each in taker.get("parameters", []) if each["in"] == "path"]
                == [id]
            }


def _codes() -> str:
    return "\n".join(["Codes:", "", *(f"- `{code}`: {what}" for code, what in CODES.items())])
