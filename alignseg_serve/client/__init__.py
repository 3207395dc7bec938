"""A client of an AlignSeg server, sync and async. It needs httpx and none of the server's code.

with Client("http://localhost:8000") as client:
    street = client.segment("street.jpg")
    street.mask  # (H, W) uint8 class ids
"""

from alignseg_serve.client.client import (
    AsyncClient,
    ClassEntry,
    ClassShare,
    ClassTable,
    Client,
    ClientError,
    Picture,
    Segmentation,
)

__all__ = ["AsyncClient", "ClassEntry", "ClassShare", "ClassTable", "Client", "ClientError", "Picture", "Segmentation"]
