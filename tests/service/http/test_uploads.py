"""Content-Type and Content-Encoding of uploads."""

import pytest

from tests.support.fake_engine import encoded, serving, striped

PNG = encoded(striped())
NAMES = [
    "image/png", "IMAGE/PNG", "image/jpeg", "image/jpg", "image/pjpeg", "image/x-png", "image/*", "*/*", "image",
    "application/octet-stream", "binary/octet-stream", "application/binary", "application/x-binary", "binary",
    "application/x-octet-stream", "application/octetstream", "application/unknown", "application/png",
    "application/x-download", "image/png; charset=binary", "",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/segment", "/"])
@pytest.mark.parametrize("content_type", NAMES)
async def test_an_image_is_accepted_under_any_name_of_its_type(content_type: str, path: str) -> None:
    async with serving() as (client, _):
        response = await client.post(path, content=PNG, headers={"Content-Type": content_type})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", ["/segment", "/"])
@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "text/html", "application/xml", "application/pdf", "video/mp4",
     "application/problem+json", "multipart/mixed; boundary=x", "application/zip"],
)  # fmt: skip
async def test_another_kind_of_content_is_rejected_by_its_type(content_type: str, path: str) -> None:
    async with serving() as (client, _):
        response = await client.post(path, content=PNG, headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["type"]) == (415, "urn:alignseg:problem:unsupported-media-type")


@pytest.mark.parametrize("encoding", ["", " ", "identity", "Identity", "identity, identity", "identity,"])
async def test_no_content_encoding_has_several_spellings(encoding: str) -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, headers={"Content-Encoding": encoding})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "br", "base64"])
async def test_a_content_encoding_is_rejected(encoding: str) -> None:
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, headers={"Content-Encoding": encoding})
    assert response.status_code == 415
    assert f"Content-Encoding is {encoding!r}" in response.json()["detail"]


async def test_two_content_encoding_headers_are_both_read() -> None:
    headers = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    async with serving() as (client, _):
        response = await client.post("/segment", content=PNG, headers=headers)
    assert response.status_code == 415
