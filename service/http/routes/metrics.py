"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.telemetry.metrics import CONTENT_TYPE, Metrics

router = APIRouter(tags=["health"])


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics", summary="For Prometheus", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
)
async def metrics(request: Request) -> Response:
    """All figures in Prometheus' text format."""
    figures: Metrics = request.app.state.metrics
    return Response(figures.render(), media_type=CONTENT_TYPE)
