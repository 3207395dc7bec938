"""The OpenAPI document agrees with real responses."""

from typing import Any

from service.http.openapi.segment import MultiImageResponse, SegmentResponse
from service.rendering import media_types
from tests.support.fake_engine import encoded, serving, striped


async def test_every_operation_has_a_summary_and_an_example_like_its_response() -> None:
    async with serving() as (client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
        infer = paths["/v2/models/{model}/infer"]["post"]
        request = infer["requestBody"]["content"]["application/json"]["example"]
        real = {
            "/classes": (await client.get("/classes")).json(),
            "/": (await client.post("/", content=encoded(striped()))).json(),
            "/v2/models/{model}/infer": (await client.post("/v2/models/fake/infer", json=request)).json(),
        }
    for path, operations in paths.items():
        for operation in operations.values():
            assert len(operation["summary"].split()) > 1, path
            if path in real:
                example = operation["responses"]["200"]["content"]["application/json"]["example"]
                assert form(example) == form(real[path])


def form(value: Any) -> Any:
    """Names and types, lists by their first element."""
    if isinstance(value, dict):
        return {name: form(of) for name, of in value.items()}
    return [form(value[0])] if isinstance(value, list) else type(value)


async def test_segment_documents_its_bodies_formats_and_real_examples() -> None:
    async with serving() as (client, _):
        spec = (await client.get("/openapi.json")).json()
        real = (await client.post("/segment", content=encoded(striped()))).json()
    operation = spec["paths"]["/segment"]["post"]
    bodies = {"multipart/form-data", "image/*", "application/octet-stream", "application/json"}
    assert set(operation["requestBody"]["content"]) == bodies
    content = operation["responses"]["200"]["content"]
    models = {part["$ref"].rsplit("/")[-1] for part in content["application/json"]["schema"]["anyOf"]}
    assert models == {"SegmentResponse", "MultiImageResponse"}
    for example in content["application/json"]["examples"].values():
        model = MultiImageResponse if "results" in example["value"] else SegmentResponse
        model.model_validate(example["value"])
    assert list(content["application/json"]["examples"]["mask as PNG"]["value"]) == list(real)
    assert set(content) == set(media_types.ALL)
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert "422" not in operation["responses"]
