"""The queue in front of engines in other processes: the counterpart of batching.Batcher over a Ray Serve handle.

Images are sent one by one; the batcher of each replica forms the batches. If a replica dies or lacks the model, the
image is sent to another one: inference has no side effects, so a retry costs time only.
"""

import asyncio
import time
from typing import Any, Final

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from service.batching.fault_isolation import OnCall
from service.batching.queue import InferenceResult
from service.errors import DeadlineExceeded, DeviceLost, EngineError
from service.model_folder.manifest import Manifest
from service.observers import never_raises
from service.ray_serve.messages import Description, Reply, engine_error, error_from_wire, tag
from service.types import UInt8Array

FIRST_PAUSE_S: Final = 0.01
MAX_PAUSE_S: Final = 0.5
_NO_DEADLINE_S: Final = 3600.0  # the timeout of an image without a deadline


class RemoteBatcher:
    """See Batcher. Used on one event loop.

    replicas: how many engine replicas exist; set from outside, as Ray Serve adds and removes them.
    """

    def __init__(
        self, handle: "DeploymentHandle[Any]", manifest: Manifest, description: Description, on_call: OnCall
    ) -> None:
        self.replicas = 1
        self.last_error: EngineError | None = None
        self._handle = handle
        self._model = tag(manifest)
        self._description = description
        self._on_call = never_raises(on_call)

    @property
    def runtime(self) -> str:
        """The engines' names."""
        return self._description.runtime

    @property
    def has_confidence(self) -> bool:
        """Whether the engines have a confidence output."""
        return self._description.has_confidence

    @property
    def total_batch_size(self) -> int:
        """The sum of all replicas' largest batches."""
        return self._description.total_batch_size * max(1, self.replicas)

    @property
    def healthy(self) -> list[int]:
        """One index per replica."""
        return list(range(self.replicas))

    @property
    def lost(self) -> DeviceLost | None:
        """Always None: Ray Serve replaces lost replicas."""
        return None

    @property
    def busy_since(self) -> float | None:
        """Always None: each replica watches its own engine."""
        return None

    async def submit(
        self,
        pixels: UInt8Array,
        deadline: float = float("inf"),
        with_confidence: bool = False,
        worker: int | None = None,
    ) -> InferenceResult:
        """See Batcher.submit. worker: ignored, Ray Serve chooses the replica.

        Raises EngineError or DeadlineExceeded.
        """
        began, pause_s = time.monotonic(), FIRST_PAUSE_S
        while (left_s := min(deadline - time.monotonic(), _NO_DEADLINE_S)) > 0:
            reply = await self._send(pixels, left_s, with_confidence)
            if reply.retry_on_other_replica is None:
                return self._result(reply, time.monotonic() - began)
            self.last_error = EngineError(reply.retry_on_other_replica)
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        raise DeadlineExceeded("The deadline passed before an engine replica computed the image. Retry later.")

    async def drain(self, timeout_s: float) -> bool:
        """Return True: requests wait in `submit` only."""
        return True

    async def _send(self, pixels: UInt8Array, left_s: float, with_confidence: bool) -> Reply:
        response = self._handle.infer.remote(self._model, pixels, left_s, with_confidence)
        try:
            async with asyncio.timeout(left_s):
                reply: Reply = await response
                return reply
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call]
            return Reply(retry_on_other_replica="no replica replied in time")
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except RayTaskError as error:  # the replica's code failed, not the replica
            return Reply(error=(EngineError.__name__, f"the engine replica failed: {error.cause!r}"))
        except (RayError, RayServeException) as error:
            return Reply(retry_on_other_replica=f"an engine replica is lost: {type(error).__name__}")

    def _result(self, reply: Reply, seconds: float) -> InferenceResult:
        for size, failure in reply.calls:
            self._on_call(size, engine_error(failure))
        if reply.error is not None:
            error = error_from_wire(reply.error)
            self.last_error = error if isinstance(error, EngineError) else self.last_error
            raise error
        self.last_error = None
        assert reply.ids is not None  # noqa: S101 - exactly one of the three is set
        queued_s = max(0.0, seconds - reply.infer_s)  # includes the transport
        return InferenceResult(reply.ids, reply.confidence, queued_s, reply.infer_s, reply.batch_size)
