"""LitServe as its documentation shows it: decode, predict and encode in a worker process, with its defaults.

    python -m benchmarks.server.peers.litserve_server --model weights/alignseg-lite      # or --infer-ms 0.3

POST /segment, as in fastapi_server.py. LitServe reads JSON or forms; FastAPI's Depends gives the raw body.
"""

from typing import Annotated, Any

import litserve
from fastapi import Depends, Request, Response

from benchmarks.server.peers.fastapi_server import mask_png, open_image
from benchmarks.server.peers.peer_model import Peer, from_command_line


async def _body(request: Request) -> bytes:
    return await request.body()


class SegmentAPI(litserve.LitAPI):  # type: ignore[misc]
    """One image at a time, from bytes to bytes."""

    def __init__(self) -> None:
        super().__init__(api_path="/segment")

    def setup(self, device: str) -> None:
        """Load the model; called in the worker."""
        self.peer: Peer
        self.peer, _ = from_command_line(__doc__)

    def decode_request(self, request: Annotated[bytes, Depends(_body)]) -> Any:
        """Bytes -> pixels and size."""
        return open_image(request, self.peer.size)

    def predict(self, x: Any) -> Any:
        """Pixels -> class ids."""
        pixels, size = x
        return self.peer.infer(pixels[None])[0], size

    def encode_response(self, output: Any) -> Response:
        """Class ids -> PNG."""
        ids, size = output
        return Response(mask_png(ids, size, self.peer.palette), media_type="image/png")


def main() -> None:
    """Command line."""
    _, port = from_command_line(__doc__)
    server = litserve.LitServer(SegmentAPI(), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, generate_client_file=False)


if __name__ == "__main__":
    main()
