"""The web page at / and Swagger UI at /docs: static files without a build step."""

from pathlib import Path
from typing import Final

SCENE: Final = Path(__file__).parent / "scene.jpg"
"""A drawn street scene, the page's demo image; engines are compared with the reference on it."""
