"""Refusals as the contract words them: one problem document (RFC 9457) for everything."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from core.errors import BadRequest, DiskFull, Problem, ServiceError, Unavailable, Unprocessable
from core.files.space import is_full_disk

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_PROBLEMS = 50
"""In one answer: nobody reads more, and a body of nonsense must not make a larger one."""
_SHOWN_CHARACTERS = 80
_CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}


class UnsupportedMediaType(ServiceError):
    status, code, title = 415, "unsupported_media_type", "The body is of another type"


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


def problem(
    error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    document: dict[str, Any] = {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if error.errors:
        document["errors"] = [vars(each) for each in error.errors]
    if error.allowed_actions is not None:
        document["allowed_actions"] = list(error.allowed_actions)
    if error.retry_after_seconds is not None:
        document["retry_after"] = error.retry_after_seconds
    return JSONResponse(
        document, error.status, {**_headers_of(error), **(headers or {})}, MEDIA_TYPE
    )


def unforeseen(cause: Exception, request_id: str) -> JSONResponse:
    """Says nothing about what went wrong but where to find it in the log; of a full disk, on which
    anything may fail, it says that."""
    if is_full_disk(cause):
        return problem(DiskFull(), request_id)
    error = ServiceError(
        f"Something went wrong here. The server's log has the reason under {request_id}."
    )
    return problem(error, request_id)


def stopping(request_id: str) -> JSONResponse:
    error = Unavailable("The server is ending: send this again in a moment.", retry_after_seconds=5)
    return problem(error, request_id)


def invalid(error: ValidationError, payload: object, *, under: str) -> Unprocessable:
    """A model's refusal of ``payload``, with pointers that start at ``under``."""
    wrong = [
        each
        for each in error.errors(include_url=False)
        if each["type"] != "default_factory_not_called"  # only says that another is wrong
    ]
    errors = [_problem_of(each, payload, under) for each in wrong[:MAX_PROBLEMS]]
    return _unprocessable(errors, len(wrong))


def _unprocessable(errors: Sequence[Problem], count: int) -> Unprocessable:
    """``errors`` are the first of ``count``."""
    more = ""
    if count > 1:
        more = f" There are {count - 1} more in `errors`."
    if count > len(errors):
        more = f" {count} things are wrong; `errors` has the first {len(errors)}."
    return Unprocessable(f"{errors[0].detail}{more}", errors=errors)


def _problem_of(detail: Mapping[str, Any], payload: object, under: str) -> Problem:
    parts = _real_parts(detail["loc"], payload, missing=detail["type"] == "missing")
    pointer = under + "".join(f"/{_escaped(part)}" for part in parts)
    name = ".".join(map(str, parts)) or under.lstrip("/") or "the body"
    return Problem(pointer, detail["type"], _sentence(_printable(name), detail))


def _sentence(name: str, detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"`{name}` is missing."
    if detail["type"] == "extra_forbidden":
        return f"There is no field `{name}`."
    return f"`{name}` is {_shown(detail.get('input'))}: {message[:1].lower()}{message[1:]}."


def _real_parts(loc: Sequence[Any], payload: Any, *, missing: bool) -> list[Any]:
    """The steps of ``loc`` that exist in ``payload``; pydantic puts names of types between."""
    parts: list[Any] = []
    for part in loc:
        if _holds(payload, part):
            payload = payload[part]
        elif not (missing and part is loc[-1]):
            continue
        parts.append(part)
    return parts


def _holds(payload: object, part: object) -> bool:
    if isinstance(payload, list):
        return isinstance(part, int) and part < len(payload)
    return isinstance(payload, dict) and part in payload


def _escaped(part: object) -> str:
    return _printable(str(part)).replace("~", "~0").replace("/", "~1")


def _shown(value: object) -> str:
    text = _printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _printable(text: str) -> str:
    """Half a surrogate pair can be sent in JSON, and cannot be sent back."""
    return text.encode("utf-8", "replace").decode()


def request_id_of(request: Request) -> str:
    return str(request.scope["state"]["request_id"])


def _headers_of(error: ServiceError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="stillroom"'
    if error.status == HTTPStatus.FORBIDDEN:
        headers["WWW-Authenticate"] = f'Bearer realm="stillroom", error="{error.code}"'
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return headers


def on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.__cause__:
        log.warning("%s: %s", error.code, error.detail, exc_info=error.__cause__)
    return problem(error, request_id_of(request))


def _on_bad_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(_refusal_of(request, error), request_id_of(request))


def _refusal_of(request: Request, error: RequestValidationError) -> ServiceError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it is not JSON")
        return BadRequest(f"The body is not JSON: {reason}.", code="malformed_json")
    sent = request.headers.get("Content-Type", "")
    if first["loc"] == ("body",) and first["type"] != "missing" and "json" not in sent:
        return UnsupportedMediaType(
            f"The body came as {_shown(sent)}: send JSON, with Content-Type: application/json."
        )
    errors = [
        _problem_of({**each, "loc": each["loc"][1:]}, _sent_there(request, error, each["loc"]), "")
        for each in error.errors()[:MAX_PROBLEMS]
    ]
    return _unprocessable(errors, len(error.errors()))


def _sent_there(request: Request, error: RequestValidationError, loc: Sequence[Any]) -> object:
    """What the part of the request holds that the first of ``loc`` names."""
    match loc:
        case ("body", *_):
            return error.body
        case ("query", *_):
            return dict(request.query_params)
        case ("path", *_):
            return dict(request.path_params)
        case (_, name, *_):  # a header, whose name may be written in any case
            return {name: request.headers.get(name)}
    return None


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: no such route or method, an unreadable form."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):  # our own, caught while the body was read
        return on_service_error(request, error.__cause__)
    if error.__cause__ is not None:
        unreadable = BadRequest(_why_unreadable(error.__cause__), code="malformed_json")
        return problem(unreadable, request_id_of(request))
    title = HTTPStatus(error.status_code).phrase
    refusal = ServiceError(
        _own_words(request, error), code=_CODES.get(error.status_code, "refused")
    )
    refusal.status, refusal.title = error.status_code, title
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    return problem(refusal, request_id_of(request), headers)


def _why_unreadable(cause: BaseException) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return "The body is not UTF-8 text, as JSON must be."
    return "The body is JSON that cannot be read: nested too deeply, or a number too long."


def _methods_at(request: Request) -> list[str]:
    """Of every route at this path; the framework would name those of the first alone."""
    routes: Sequence[Route] = request.app.state.routes
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in matching for method in route.methods or ()})


def _own_words(request: Request, error: HTTPException) -> str:
    path = _printable(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {path}."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not take {request.method}."
    return str(error.detail)
