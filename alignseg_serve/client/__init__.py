"""A client of an AlignSeg server, sync and async. It needs httpx and none of the server's code.

with Client("http://localhost:8000") as client:
    street = client.segment("street.jpg")
    street.mask  # (H, W) uint8 class ids
"""

from alignseg_serve.client.client import AsyncClient, Client
from alignseg_serve.client.errors import ClientError
from alignseg_serve.client.schemas import ClassEntry, ClassShare, ClassTable, ImageInput, Segmentation

__all__ = [
    "AsyncClient",
    "ClassEntry",
    "ClassShare",
    "ClassTable",
    "Client",
    "ClientError",
    "ImageInput",
    "Segmentation",
]
