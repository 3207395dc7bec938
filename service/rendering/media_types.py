"""Media types of responses, the default first."""

from typing import Final

JSON: Final = "application/json"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
WEBP: Final = "image/webp"
NPY: Final = "application/x-npy"
ZIP: Final = "application/zip"
MULTIPART: Final = "multipart/mixed"
ALL: Final = (JSON, PNG, JPEG, WEBP, NPY, ZIP, MULTIPART)
