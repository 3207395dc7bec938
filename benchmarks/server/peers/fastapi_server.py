"""The plain FastAPI server that a user would write in 30 lines: a lock around the engine, a thread pool, Pillow.

    python -m benchmarks.server.peers.fastapi_server --model weights/alignseg-lite      # or --infer-ms 0.3

POST /segment: an image as the body; the response is the indexed PNG of its class ids.
"""

import io
import threading
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from benchmarks.server.peers.peer_model import Peer, from_command_line


def create_app(peer: Peer) -> FastAPI:
    """One route."""
    app, lock = FastAPI(), threading.Lock()

    def segment(data: bytes) -> bytes:
        pixels, size = open_image(data, peer.size)
        with lock:
            ids = peer.infer(pixels[None])[0]
        return mask_png(ids, size, peer.palette)

    @app.post("/segment")
    async def post_segment(request: Request) -> Response:
        return Response(await run_in_threadpool(segment, await request.body()), media_type="image/png")

    return app


def open_image(data: bytes, size: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """(H, W, 3) uint8 RGB at the network's (width, height), and the image's own (width, height)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR)), image.size


def mask_png(ids: Any, size: tuple[int, int], palette: bytes) -> bytes:
    """The indexed PNG of (H, W) uint8 class ids, at the image's own size."""
    mask, out = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST), io.BytesIO()
    mask.putpalette(palette)
    mask.save(out, "PNG")
    return out.getvalue()


def main() -> None:
    """Command line."""
    peer, port = from_command_line(__doc__)
    uvicorn.run(create_app(peer), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
