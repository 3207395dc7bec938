"""The queue in front of engines that are elsewhere: what batcher.Batcher is in one process, over a Serve handle.

Pictures travel one by one and meet at the replicas, whose batchers cut the batches. A replica that dies, or lacks the
model, costs a picture time, not its answer: inference changes nothing, so another replica is asked.
"""

import asyncio
import time
from typing import Any, Final

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from service.batching.fault_isolation import OnCall
from service.batching.queue import Inferred
from service.errors import DeadlineExceeded, DeviceLost, EngineError
from service.model_folder.manifest import Manifest
from service.ray_serve.messages import Description, Reply, engine_error, raised, tag
from service.types import UInt8Array

FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.5
_NEVER_S: Final = 3600.0  # for a deadline that there is not


class RemoteBatcher:
    """See Batcher; all on one event loop.

    replicas: how many there are now; told from outside, as Serve adds and removes them.
    """

    def __init__(
        self, handle: "DeploymentHandle[Any]", manifest: Manifest, described: Description, on_call: OnCall
    ) -> None:
        self.replicas = 1
        self.last_error: EngineError | None = None
        self._handle = handle
        self._model = tag(manifest)
        self._described = described
        self._on_call = on_call

    @property
    def runtime(self) -> str:
        """The engines' names."""
        return self._described.runtime

    @property
    def has_confidence(self) -> bool:
        """Whether the engines can tell it."""
        return self._described.has_confidence

    @property
    def total_batch_size(self) -> int:
        """How many pictures all replicas take at once."""
        return self._described.total_batch_size * max(1, self.replicas)

    @property
    def working(self) -> list[int]:
        """A number for each replica."""
        return list(range(self.replicas))

    @property
    def lost(self) -> DeviceLost | None:
        """Never: Serve replaces what is."""
        return None

    @property
    def busy_since(self) -> float | None:
        """Unknown here; each replica watches its own engine."""
        return None

    async def submit(
        self,
        pixels: UInt8Array,
        deadline: float = float("inf"),
        with_confidence: bool = False,
        worker: int | None = None,
    ) -> Inferred:
        """See Batcher.submit. worker: no replica can be chosen; whichever is free does it.

        Raises EngineError or DeadlineExceeded.
        """
        began, pause_s = time.monotonic(), FIRST_PAUSE_S
        while (left_s := min(deadline - time.monotonic(), _NEVER_S)) > 0:
            reply = await self._ask(pixels, left_s, with_confidence)
            if reply.elsewhere is None:
                return self._taken(reply, time.monotonic() - began)
            self.last_error = EngineError(reply.elsewhere)
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        raise DeadlineExceeded("the deadline passed before an engine was free. Come back later.")

    async def drain(self, timeout_s: float) -> bool:
        """Nothing waits here that is not waited for."""
        return True

    async def _ask(self, pixels: UInt8Array, left_s: float, with_confidence: bool) -> Reply:
        response = self._handle.infer.remote(self._model, pixels, left_s, with_confidence)
        try:
            async with asyncio.timeout(left_s):
                reply: Reply = await response
                return reply
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call]
            return Reply(elsewhere="no replica answered in time")
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
        except RayTaskError as error:  # the replica is well, its code is not
            return Reply(error=(EngineError.__name__, f"the engine's replica failed: {error.cause!r}"))
        except (RayError, RayServeException) as error:
            return Reply(elsewhere=f"a replica is gone: {type(error).__name__}")

    def _taken(self, reply: Reply, seconds: float) -> Inferred:
        for size, failure in reply.calls:
            self._on_call(size, engine_error(failure))
        if reply.error is not None:
            error = raised(reply.error)
            self.last_error = error if isinstance(error, EngineError) else self.last_error
            raise error
        self.last_error = None
        assert reply.ids is not None  # noqa: S101 - exactly one of the three is there
        queued_s = max(0.0, seconds - reply.infer_s)  # the way there and back included
        return Inferred(reply.ids, reply.confidence, queued_s, reply.infer_s, reply.batch_size)
