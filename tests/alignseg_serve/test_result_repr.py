"""Printing a result shows one line, with and without a server."""

import httpx
import numpy as np

from alignseg_serve import Segmenter
from alignseg_serve.client import Client
from service.settings import Settings
from tests.support.fake_engine import FakeEngine, encoded, manifest, serving, striped

PNG = encoded(striped())


async def test_the_repr_is_one_line_without_pixels() -> None:
    async with serving() as (server, _):
        body = (await server.post("/segment", content=PNG)).content
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    with (
        Client("http://server", transport=transport) as client,
        Segmenter.from_engine(manifest(), FakeEngine(), Settings()) as segmenter,
    ):
        from_server, local = client.segment(PNG), segmenter.segment(PNG)
        nothing = segmenter.segment(encoded(np.full((8, 8, 3), 1, dtype=np.uint8)), classes=["car"])
    shares = sorted(local.classes, key=lambda entry: -entry.fraction)
    assert repr(local).startswith(f"<Segmentation {local.width}x{local.height} by fake 1: {shares[0].name} ")
    assert f"{100 * shares[0].fraction:.1f} %" in repr(local)
    assert repr(from_server) == repr(local) == str(local)
    assert len(repr(local)) < 200
    assert repr(nothing).endswith("fake 1: no classes>")
