import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.errors import EngineError
from service.model_folder.manifest import FILE_NAME, Manifest
from service.settings import Settings
from tests.support import fake_engine
from tests.support.fake_engine import FakeEngine, encoded, serving_app, striped

PNG = encoded(striped())


class FakeServer:
    """An application that serves the model in `folder` with fake engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engines: list[FakeEngine] = []
        self.next = FakeEngine()
        self.client: httpx.AsyncClient
        self.app: FastAPI

    def open(self, _settings: Settings, _manifest: Manifest) -> list[FakeEngine]:
        self.engines.append(self.next)
        self.next = FakeEngine()
        return self.engines[-1:]

    def write_model(self, version: str, **changes: object) -> None:
        description = json.loads(fake_engine.manifest().model_dump_json()) | {"version": version} | changes
        temporary = self.folder / "model.json.part"
        temporary.write_text(json.dumps(description))
        temporary.replace(self.folder / FILE_NAME)

    async def version(self) -> str:
        return str((await self.client.get("/classes")).json()["version"])

    async def ready(self) -> dict[str, str]:
        body: dict[str, str] = (await self.client.get("/healthz/ready")).json()
        return body

    async def reload(self) -> None:
        watch = self.app.state.model_watcher
        watch.check_now()
        for _ in range(2000):
            await asyncio.sleep(0.002)
            if not watch._check_requested.is_set() and not watch.busy:
                return
        pytest.fail("the folder was not checked")


@asynccontextmanager
async def serving(folder: Path, **settings: object) -> AsyncGenerator[FakeServer, None]:
    server = FakeServer(folder)
    server.write_model("1")
    server.app = create_app(Settings(**{"model": folder, "model_poll_s": 0, **settings}), engine_factory=server.open)  # type: ignore[arg-type]
    async with serving_app(server.app) as client:
        server.client = client
        yield server
    assert all(engine.closed for engine in server.engines)


async def test_check_now_replaces_a_changed_model(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.write_model("2")
        await server.reload()
        assert await server.version() == "2"
        assert (await server.client.post("/segment", content=PNG)).json()["version"] == "2"
        await asyncio.sleep(0.05)
        assert [engine.closed for engine in server.engines] == [True, False]
        page = (await server.client.get("/metrics")).text
    assert 'alignseg_model_swaps_total{outcome="swapped"} 1.0' in page
    assert 'alignseg_model_serving{engine="fake",model="fake",version="2"} 1.0' in page
    assert 'version="1"' not in page


async def test_a_changed_model_is_noticed_once_the_folder_stops_changing(tmp_path: Path) -> None:
    async with serving(tmp_path, model_poll_s=0.02) as server:
        server.write_model("2")
        for _ in range(500):
            await asyncio.sleep(0.01)
            if await server.version() == "2":
                break
        assert await server.version() == "2"
        os.utime(tmp_path / FILE_NAME)  # touched, not changed
        await asyncio.sleep(0.1)
    assert len(server.engines) == 2


async def test_a_model_written_while_the_first_one_warms_up_is_noticed(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    server.write_model("1")
    server.next.before = lambda _batch: server.write_model("2") if len(server.engines) == 1 else None
    server.app = create_app(Settings(model=tmp_path, model_poll_s=0.02), engine_factory=server.open)
    async with serving_app(server.app) as client:
        server.client = client
        assert await server.version() == "1"
        for _ in range(500):
            await asyncio.sleep(0.01)
            if await server.version() == "2":
                break
        assert await server.version() == "2"


async def test_a_broken_manifest_is_refused_and_the_old_model_stays(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        (tmp_path / FILE_NAME).write_text('{"name": "half')
        await server.reload()
        assert (await server.client.post("/segment", content=PNG)).json()["version"] == "1"
        ready = await server.ready()
        assert ready["status"] == "ready"
        assert "is not a model manifest" in ready["refused_model"]
        assert 'alignseg_model_swaps_total{outcome="refused"} 1.0' in (await server.client.get("/metrics")).text
        server.write_model("2")
        await server.reload()
        assert await server.ready() == {"status": "ready", "model": "fake", "version": "2"}


async def test_a_model_that_does_not_warm_up_is_refused(tmp_path: Path) -> None:
    def fail(_batch: object) -> None:
        raise EngineError("no kernel for this device")

    async with serving(tmp_path) as server:
        server.write_model("2")
        server.next.before = fail
        await server.reload()
        assert (await server.client.post("/segment", content=PNG)).json()["version"] == "1"
        assert "no kernel for this device" in (await server.ready())["refused_model"]
        await asyncio.sleep(0.05)
        assert [engine.closed for engine in server.engines] == [False, True]


async def test_a_model_whose_engine_does_not_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as server:
        server.write_model("2")
        monkeypatch.setattr(server, "next", None)
        server.app.state.model_watcher._load = lambda manifest: 1 / 0
        await server.reload()
        assert await server.version() == "1"
        assert "division by zero" in (await server.ready())["refused_model"]


async def test_replacing_models_under_load_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        stop = asyncio.Event()
        versions: list[str] = []

        async def client() -> None:
            while not stop.is_set():
                response = await server.client.post("/segment", content=PNG)
                assert response.status_code == 200, response.text
                versions.append(response.json()["version"])

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for version in range(2, 7):
            server.write_model(str(version))
            await server.reload()
            for _ in range(1000):  # until the new model serves
                await asyncio.sleep(0.005)
                if versions[-16:].count(str(version)) > 8:
                    break
        stop.set()
        await asyncio.gather(*clients)
    assert {"2", "3", "4", "5", "6"} <= set(versions)


async def test_a_request_ends_with_the_model_it_began_with(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        gate = fake_engine.Gate()
        server.engines[0].before = gate
        request = asyncio.create_task(server.client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 120)
        server.write_model("2")
        await server.reload()
        assert (await server.client.post("/segment", content=PNG)).json()["version"] == "2"
        assert not server.engines[0].closed
        gate.opened.set()
        assert (await request).json()["version"] == "1"


async def test_a_newly_built_engine_reloads_the_model(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.reload()
        assert len(server.engines) == 1
        (tmp_path / "engines").mkdir()
        (tmp_path / "engines" / "h200.json").write_text("{}")  # only the engine factory reads its content
        await server.reload()
        assert len(server.engines) == 2
        await server.reload()
        assert len(server.engines) == 2
