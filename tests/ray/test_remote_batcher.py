"""RemoteBatcher and EngineReplica without Ray between them: a handle that calls replicas in this process."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, ActorUnavailableError

from service.errors import DeadlineExceeded, DeviceLost, EngineError
from service.model_folder.manifest import FILE_NAME, Manifest
from service.ray_serve.engine_replica import EngineReplica
from service.ray_serve.messages import tag
from service.ray_serve.remote_batcher import RemoteBatcher
from service.settings import Settings
from service.types import Engine, UInt8Array
from tests.support.fake_engine import FakeEngine, Gate, manifest

PIXELS = np.zeros((16, 24, 3), dtype=np.uint8)


class Response:
    """The part of Ray Serve's DeploymentResponse that is used."""

    def __init__(self, work: Any) -> None:
        self.task = asyncio.ensure_future(work)

    def __await__(self) -> Any:
        return asyncio.shield(self.task).__await__()

    def cancel(self) -> None:
        self.task.cancel()


class Handle:
    """Calls the replicas in turn. before: may raise what Ray raises."""

    def __init__(self, *replicas: EngineReplica, before: Callable[[int], object] = lambda call: None) -> None:
        self.replicas, self.before, self.calls = replicas, before, 0
        self.responses: list[Response] = []
        self.infer = self

    def remote(self, *arguments: Any) -> Response:
        self.responses.append(Response(self._call(self.calls, *arguments)))
        self.calls += 1
        return self.responses[-1]

    async def _call(self, call: int, *arguments: Any) -> Any:
        self.before(call)
        return await self.replicas[call % len(self.replicas)].infer(*arguments)


@asynccontextmanager
async def replica(folder: Path, *engines: FakeEngine, **settings: Any) -> AsyncGenerator[EngineReplica, None]:
    """engines: opened one after the other, one per model."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    (folder / FILE_NAME).write_text(manifest().model_dump_json())
    left = list(engines or [FakeEngine()])

    def engine_factory(_settings: Settings, _manifest: Manifest) -> list[Engine]:
        return [left.pop(0)]

    served = EngineReplica(
        Settings(**{"model": folder, "model_poll_s": 0.01, "drain_timeout_s": 0.2, **settings}), engine_factory
    )
    await served.start()
    try:
        yield served
    finally:
        await served.close()
    assert all(engine.closed for engine in engines[: len(engines) - len(left)])


async def remote(handle: Handle, on_call: Any = lambda size, error: None) -> RemoteBatcher:
    return RemoteBatcher(handle, manifest(), await handle.replicas[0].describe(), on_call)  # type: ignore[arg-type]


async def test_images_of_one_ingress_share_batches_at_the_replica(tmp_path: Path) -> None:
    gate, calls = Gate(), []
    engine = FakeEngine(max_batch=4, before=lambda batch: gate(batch) if len(engine.batches) == 3 else None)
    async with replica(tmp_path, engine) as one:
        batcher = await remote(Handle(one), lambda size, error: calls.append((size, error)))
        first = asyncio.ensure_future(batcher.submit(PIXELS))
        await asyncio.to_thread(gate.entered.wait, 120)
        others = [asyncio.ensure_future(batcher.submit(PIXELS + 1, with_confidence=n > 3)) for n in range(6)]
        await asyncio.sleep(0.05)
        gate.opened.set()
        results = await asyncio.gather(first, *others)
    assert [result.batch_size for result in results] == [1, 4, 4, 4, 4, 2, 2]
    assert (results[1].ids == 1).all()
    assert results[1].confidence is None
    assert results[-1].confidence is not None
    assert sum(size for size, _ in calls) == 7 + 2  # one per bucket to warm up


async def test_a_dead_replica_loses_no_image(tmp_path: Path) -> None:
    def gone(call: int) -> None:
        if call == 0:
            raise ActorDiedError()
        if call == 1:
            raise ActorUnavailableError("no reply", None)

    async with replica(tmp_path) as one:
        batcher = await remote(handle := Handle(one, before=gone))
        await batcher.submit(PIXELS)
    assert handle.calls == 3
    assert batcher.last_error is None


async def test_a_lost_engine_sends_its_images_to_another_replica_and_fails_its_health_check(tmp_path: Path) -> None:
    def lose(batch: UInt8Array) -> None:
        if len(bad.batches) > 2:
            raise DeviceLost("it fell off the bus")

    bad = FakeEngine(before=lose)
    async with replica(tmp_path / "a", bad) as one, replica(tmp_path / "b") as other:
        batcher = await remote(Handle(one, other))
        await batcher.submit(PIXELS)
        with pytest.raises(RuntimeError, match="fell off the bus"):
            await one.check_health()
        await other.check_health()


async def test_the_error_of_an_image_is_raised_and_counted(tmp_path: Path) -> None:
    def fail(batch: UInt8Array) -> None:
        if batch.any():
            raise EngineError("not this one")

    calls: list[Any] = []
    async with replica(tmp_path, FakeEngine(before=fail)) as one:
        batcher = await remote(handle := Handle(one), lambda size, error: calls.append(error))
        with pytest.raises(EngineError, match="not this one"):
            await batcher.submit(PIXELS + 1)
        assert batcher.last_error is not None
        await batcher.submit(PIXELS)
        assert batcher.last_error is None
    assert handle.calls == 2
    assert [type(error) for error in calls].count(EngineError) == 1


async def test_a_deadline_passes_in_the_ingress_or_in_the_replica(tmp_path: Path) -> None:
    gate = Gate()
    engine = FakeEngine(before=lambda batch: gate(batch) if len(engine.batches) > 2 else None)
    async with replica(tmp_path, engine) as one:
        batcher = await remote(handle := Handle(one))
        busy = asyncio.ensure_future(batcher.submit(PIXELS))
        await asyncio.to_thread(gate.entered.wait, 120)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(PIXELS, time.monotonic() + 0.05)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(PIXELS, time.monotonic() - 1)
        cancelled = asyncio.ensure_future(batcher.submit(PIXELS))
        await asyncio.sleep(0.02)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        gate.opened.set()
        await busy
        await asyncio.wait([response.task for response in handle.responses])
    assert handle.responses[-1].task.cancelled()
    assert len(engine.batches) == 3  # late and cancelled images were not computed


async def test_a_new_model_is_served_beside_the_old_one_until_that_is_unused(tmp_path: Path) -> None:
    async with replica(tmp_path, FakeEngine(), FakeEngine()) as one:
        old = await remote(Handle(one))
        description = json.loads((tmp_path / FILE_NAME).read_text()) | {"version": "2"}
        (tmp_path / FILE_NAME).write_text(json.dumps(description))
        newer = Manifest.model_validate(description)
        new = RemoteBatcher(Handle(one), newer, await one.describe(), lambda size, error: None)  # type: ignore[arg-type]
        await new.submit(PIXELS, time.monotonic() + 10)  # waits until the replica has it
        for _ in range(10):
            await old.submit(PIXELS)
            await asyncio.sleep(0.05)
        assert (await one.describe()).models == (tag(manifest()), tag(newer))
        await asyncio.sleep(0.5)
        assert (await one.describe()).models == (tag(newer),)
        with pytest.raises(DeadlineExceeded):
            await old.submit(PIXELS, time.monotonic() + 0.05)
        assert "not fake 1" in str(old.last_error)


async def test_a_broken_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with replica(tmp_path) as one:
        (tmp_path / FILE_NAME).write_text("{")
        while (await one.describe()).refused is None:  # noqa: ASYNC110 - it looks by itself
            await asyncio.sleep(0.01)
        await (await remote(Handle(one))).submit(PIXELS)
