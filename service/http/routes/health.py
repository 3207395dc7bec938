"""GET /healthz/live, /healthz/ready and /metrics: what orchestrators and Prometheus request."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.errors import NotReady
from service.inference.pipeline import Pipeline
from service.telemetry.metrics import CONTENT_TYPE, Metrics

router = APIRouter(tags=["health"])
_METRICS: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {}}}}


@router.head("/healthz/live", include_in_schema=False)
@router.get("/healthz/live", summary="Liveness probe")
async def live(request: Request) -> dict[str, str]:
    """200 while the process can serve; 503 when it must be restarted."""
    require_live(request)
    return {"status": "live"}


@router.head("/healthz/ready", include_in_schema=False)
@router.get("/healthz/ready", summary="Readiness probe")
@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Same as /healthz/ready")
async def ready(request: Request) -> dict[str, Any]:
    """200 while the latest inference succeeded and new requests are accepted.

    `refused_model` says why a changed model in the model folder was not loaded; the previous model keeps serving.
    """
    await require_ready(request)
    manifest = request.app.state.pipeline.manifest
    status = {"status": "ready", "model": manifest.name, "version": manifest.version}
    refused = request.app.state.model_watcher.refused
    return status | ({"refused_model": refused} if refused else {})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=_METRICS)
async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    app_metrics: Metrics = request.app.state.metrics
    return Response(app_metrics.render(), media_type=CONTENT_TYPE)


def require_live(request: Request) -> None:
    """Raises NotReady when the process must be restarted."""
    pipeline: Pipeline = request.app.state.pipeline
    if (reason := pipeline.health.why_not_alive()) is not None:
        raise NotReady(f"Not live: {reason.rstrip('.')}. Restart the process.")


async def require_ready(request: Request) -> None:
    """Raises NotReady when new requests should go elsewhere."""
    pipeline: Pipeline = request.app.state.pipeline
    if (reason := await pipeline.health.why_not_ready()) is not None:
        raise NotReady(f"Not ready: {reason.rstrip('.')}. Send requests to another replica until this one is ready.")
