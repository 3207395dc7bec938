"""The page at /. For now the way to the API's own."""

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> RedirectResponse:
    """Go to /docs."""
    return RedirectResponse("/docs")
