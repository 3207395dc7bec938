"""GET /docs: the API's description, by a Swagger UI that lies here. FastAPI's own would fetch it from a CDN."""

from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.http.routes.web import files_of

router = APIRouter(include_in_schema=False)

_SWAGGER: Final = ("fastapi_swagger", "resources")  # a package that holds Swagger UI's own distribution
_POLICY: Final = (  # Swagger UI styles inline, and its icons are data:
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """Swagger UI over /openapi.json."""
    response = files_of("service", "web")["docs.html"].answer(request)
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@router.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    """One of Swagger UI's files."""
    found = files_of(*_SWAGGER).get(name)
    if found is None:
        raise HTTPException(404, "no such file")
    return found.answer(request)
