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
from service.observers import isolated
from service.rendering import media_types
from service.telemetry import request_record

log = logging.getLogger("alignseg.http")
MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:alignseg:problem:"
_METHODS: Final = ("GET", "HEAD", "POST")
# Two header lines: Chromium ignores a line with two challenges, and only Basic makes a browser ask for the key.
_CHALLENGES: Final = ("Bearer", 'Basic realm="alignseg", charset="UTF-8"')


def install(app: FastAPI) -> None:
    """Respond to all errors of `app` with problem documents.

    The handlers are coroutines although they await nothing: Starlette runs plain functions in a thread, which costs
    time, and a server that stops meanwhile would cancel the response.
    """
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected_error)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - Starlette passes the class that was registered
    return error_response(request, error)


def error_response(request: Request, error: RequestError) -> Response:
    """The response to a request that failed or was rejected."""
    with isolated:
        request_record.note_refused(error.reason)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))  # whole seconds, by RFC 9110
        headers["Retry-After-Ms"] = str(math.ceil(error.retry_after_s * 1e3))  # more exact, for clients that know it
    if isinstance(error, PayloadTooLarge | UploadTooSlow):
        headers["Connection"] = "close"  # the rest of the body is not read
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", _request_id(request), request.url.path, error)
    response = _response(request, problem_members(request, error), headers)
    if isinstance(error, Unauthorized):
        for challenge in _CHALLENGES:
            response.headers.append("WWW-Authenticate", challenge)
    return response


def problem_members(request: Request, error: RequestError) -> dict[str, Any]:
    """The problem's members (RFC 9457, section 3.1), and `retry_after_s` where the request may be retried."""
    problem = _members(request, error.status, error.title, str(error), TYPE_PREFIX + error.slug)
    if error.retry_after_s is not None:
        problem["retry_after_s"] = round(error.retry_after_s, 3)
    return problem


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title, path = HTTPStatus(error.status_code).phrase, request.url.path
    detail, headers = f"{request.method} {path}: {error.detail}", error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(method for method in _METHODS if _is_served(request, method, path))
        detail, headers = f"{path} does not support {request.method}. Supported: {allowed}", {"Allow": allowed}
    elif error.detail == title:
        detail = f"No such path: {path}"
    hint = " See GET /docs for all paths." if _is_served(request, "GET", "/docs") else ""
    return _response(request, _members(request, error.status_code, title, f"{detail}.{hint}"), headers)


def _is_served(request: Request, method: str, path: str) -> bool:
    """Whether there is such a route. Starlette reports only the methods of the first route at a path."""
    scope = {**request.scope, "method": method, "path": path}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return _response(request, _members(request, 422, "Unprocessable Content", detail))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", _request_id(request), request.url.path, exc_info=error)
    detail = "Unexpected server error. The server log has the details under this request id; please report it."
    problem = _members(request, 500, "Internal Server Error", detail)
    # Set here, because this response is made outside of ObservabilityMiddleware, which adds it to every other one.
    return _response(request, problem, {"X-Request-Id": _request_id(request)})


def _members(request: Request, status: int, title: str, detail: str, type_: str = "about:blank") -> dict[str, Any]:
    return {"type": type_, "title": title, "status": status, "detail": detail, "request_id": _request_id(request)}


def serialize(problem: Mapping[str, Any], path: str) -> tuple[bytes, str]:
    """A problem's body and media type: problem+json, or what the clients of a third-party protocol expect."""
    error = {"error": f"{problem['title']}: {problem['detail']}"}
    if path.startswith("/v2/"):  # the Open Inference Protocol
        return orjson.dumps(error), media_types.JSON
    if path == "/":  # Hugging Face's client reads `error` and ignores the rest
        return orjson.dumps({**problem, **error}), MEDIA_TYPE
    return orjson.dumps(problem), MEDIA_TYPE


def _response(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body, media_type = serialize(problem, request.url.path)
    return Response(body, status_code=problem["status"], media_type=media_type, headers=dict(headers or {}))


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", "-"))
