"""Every error as application/problem+json (RFC 9457), FastAPI's own included."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors import PayloadTooLarge, RequestError, Unauthorized, UploadTooSlow
from service.rendering import media_types
from service.telemetry import request_record

log = logging.getLogger("alignseg.http")
MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:alignseg:problem:"
_METHODS: Final = ("GET", "HEAD", "POST")
# A line each: Chromium passes over a line with two, and only Basic makes a browser ask for the key.
_CHALLENGES: Final = ("Bearer", 'Basic realm="alignseg", charset="UTF-8"')


def install(app: FastAPI) -> None:
    """Answer all errors of `app` as problems."""
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _bug)


def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - Starlette hands over what was registered
    return answer_to(request, error)


def answer_to(request: Request, error: RequestError) -> Response:
    """The answer to a request that failed, or was refused."""
    request_record.note_refused(error.reason)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))  # whole seconds, says RFC 9110
        headers["Retry-After-Ms"] = str(math.ceil(error.retry_after_s * 1e3))  # for who can read it: a second is long
    if isinstance(error, PayloadTooLarge | UploadTooSlow):
        headers["Connection"] = "close"  # the rest of that body is not worth reading, or waiting for
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", _request_id(request), request.url.path, error)
    response = _response(request, describe(request, error), headers)
    if isinstance(error, Unauthorized):
        for challenge in _CHALLENGES:
            response.headers.append("WWW-Authenticate", challenge)
    return response


def describe(request: Request, error: RequestError) -> dict[str, Any]:
    """The problem's members (RFC 9457, section 3.1), and when it is worth coming back."""
    problem = _members(request, error.status, error.title, str(error), TYPE_PREFIX + error.slug)
    if error.retry_after_s is not None:
        problem["retry_after_s"] = round(error.retry_after_s, 3)
    return problem


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title, path = HTTPStatus(error.status_code).phrase, request.url.path
    told, headers = f"{request.method} {path}: {error.detail}", error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(method for method in _METHODS if _is_served(request, method, path))
        told, headers = f"{path} does not take {request.method}, it takes {allowed}", {"Allow": allowed}
    elif error.detail == title:
        told = f"there is nothing at {path}"
    hint = " GET /docs shows what there is." if _is_served(request, "GET", "/docs") else ""
    return _response(request, _members(request, error.status_code, title, f"{told}.{hint}"), headers)


def _is_served(request: Request, method: str, path: str) -> bool:
    """Whether there is such a route. Starlette names the methods of the first one at a path alone."""
    scope = {**request.scope, "method": method, "path": path}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return _response(request, _members(request, 422, "Unprocessable Content", detail))


def _bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", _request_id(request), request.url.path, exc_info=error)
    detail = "a bug in the server; its log has more under this request id."
    # Made outside of the middleware that names every other answer.
    problem = _members(request, 500, "Internal Server Error", detail)
    return _response(request, problem, {"X-Request-Id": _request_id(request)})


def _members(request: Request, status: int, title: str, detail: str, kind: str = "about:blank") -> dict[str, Any]:
    return {"type": kind, "title": title, "status": status, "detail": detail, "request_id": _request_id(request)}


def written(problem: Mapping[str, Any], path: str) -> tuple[bytes, str]:
    """A problem's body and media type: problem+json, but what the routes made for others' clients must give them."""
    told = {"error": f"{problem['title']}: {problem['detail']}"}
    if path.startswith("/v2/"):  # the Open Inference Protocol
        return orjson.dumps(told), media_types.JSON
    if path == "/":  # Hugging Face's client reads `error` and passes the rest over
        return orjson.dumps({**problem, **told}), MEDIA_TYPE
    return orjson.dumps(problem), MEDIA_TYPE


def _response(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body, media_type = written(problem, request.url.path)
    return Response(body, status_code=problem["status"], media_type=media_type, headers=dict(headers or {}))


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", "-"))
