"""The page at / and its files: read once, sent with an ETag, so that a reload costs 304 and no byte of body."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES: Final = {  # by suffix; mimetypes would ask the system, and systems differ on .js
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "png": "image/png",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that only changes with a release."""

    body: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 for who has it already. Always asked for: an upgrade must not meet half an old page."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known == "*" or self.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


@cache
def files_of(package: str, folder: str) -> dict[str, StaticFile]:
    """By name, every file of a package's folder that browsers ask for."""
    found = (resources.files(package) / folder).iterdir()
    return {entry.name: _read(entry.read_bytes(), kind) for entry in found if (kind := _kind(entry.name))}


def _kind(name: str) -> str | None:
    return _MEDIA_TYPES.get(name.rpartition(".")[2])


def _read(body: bytes, media_type: str) -> StaticFile:
    return StaticFile(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page."""
    return files_of("service", "web")["index.html"].answer(request)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def file(request: Request, name: str) -> Response:
    """One of the page's files. Names are looked up, never joined to a path."""
    found = files_of("service", "web").get(name)
    if found is None:
        raise HTTPException(404, "no such file")
    return found.answer(request)
