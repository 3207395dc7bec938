"""The web page at / and Swagger UI at /docs: static files, read once and sent with an ETag.

Swagger UI comes from a package, so that a browser loads nothing from another host; FastAPI's own page uses a CDN.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_PAGE: Final = ("service", "web")
_SWAGGER: Final = ("fastapi_swagger", "resources")  # a package with Swagger UI's own distribution
_SWAGGER_POLICY: Final = (  # Swagger UI has inline styles and data: icons
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA_TYPES: Final = {  # by suffix; the mimetypes module would ask the system, and systems differ on .js
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "png": "image/png",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The web page."""
    return _files_of(*_PAGE)["index.html"].respond(request)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def page_file(request: Request, name: str) -> Response:
    """One of the web page's files."""
    return _file(_PAGE, name).respond(request)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """Swagger UI over /openapi.json."""
    response = _files_of(*_PAGE)["docs.html"].respond(request)
    response.headers["Content-Security-Policy"] = _SWAGGER_POLICY
    return response


@router.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def docs_file(request: Request, name: str) -> Response:
    """One of Swagger UI's files."""
    return _file(_SWAGGER, name).respond(request)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that changes only with a release."""

    body: bytes
    media_type: str
    etag: str

    def respond(self, request: Request) -> Response:
        """The file, or 304 if the client has it. Always revalidated, so that an upgrade never mixes two versions."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known == "*" or self.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def _file(folder: tuple[str, str], name: str) -> StaticFile:
    """Names are looked up, never joined to a path. Raises HTTPException (404)."""
    file = _files_of(*folder).get(name)
    if file is None:
        raise HTTPException(404, "no such file")
    return file


@cache
def _files_of(package: str, folder: str) -> dict[str, StaticFile]:
    """Every file of a package's folder that browsers may load, by name."""
    entries = (resources.files(package) / folder).iterdir()
    return {entry.name: _read(entry.read_bytes(), kind) for entry in entries if (kind := _media_type(entry.name))}


def _media_type(name: str) -> str | None:
    return _MEDIA_TYPES.get(name.rpartition(".")[2])


def _read(body: bytes, media_type: str) -> StaticFile:
    return StaticFile(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
