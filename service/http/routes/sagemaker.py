"""GET /ping: health as Amazon SageMaker asks for it. Its POST /invocations is POST /segment, see segment.py.

Source: "Custom inference code with hosting services" in SageMaker's developer guide.
"""

from fastapi import APIRouter, Request, Response

from service.http.routes.health import require_ready

router = APIRouter(tags=["health"])


@router.get("/ping", summary="Readiness probe of Amazon SageMaker", response_class=Response)
async def ping(request: Request) -> Response:
    """Same as /healthz/ready, without a body."""
    await require_ready(request)
    return Response()
