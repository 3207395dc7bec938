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


class House:
    """A server of the model in `folder`, whose engines are fakes."""

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

    def put(self, version: str, **changes: object) -> None:
        described = json.loads(fake_engine.manifest().model_dump_json()) | {"version": version} | changes
        temporary = self.folder / "model.json.part"
        temporary.write_text(json.dumps(described))
        temporary.replace(self.folder / FILE_NAME)

    async def version(self) -> str:
        return str((await self.client.get("/classes")).json()["version"])

    async def ready(self) -> dict[str, str]:
        found: dict[str, str] = (await self.client.get("/healthz/ready")).json()
        return found

    async def tried(self) -> None:
        watch = self.app.state.watch
        watch.check_now()
        for _ in range(2000):
            await asyncio.sleep(0.002)
            if not watch._told.is_set() and not watch.busy:
                return
        pytest.fail("it was not tried")


@asynccontextmanager
async def house(folder: Path, **settings: object) -> AsyncGenerator[House, None]:
    made = House(folder)
    made.put("1")
    made.app = create_app(Settings(**{"model": folder, "model_poll_s": 0, **settings}), engine_factory=made.open)  # type: ignore[arg-type]
    async with serving_app(made.app) as client:
        made.client = client
        yield made
    assert all(engine.closed for engine in made.engines)


async def test_a_changed_model_is_swapped_when_told(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        made.put("2")
        await made.tried()
        assert await made.version() == "2"
        assert (await made.client.post("/segment", content=PNG)).json()["version"] == "2"
        await asyncio.sleep(0.05)
        assert [engine.closed for engine in made.engines] == [True, False]
        page = (await made.client.get("/metrics")).text
    assert 'alignseg_model_swaps_total{outcome="swapped"} 1.0' in page
    assert 'alignseg_model_serving{engine="fake",model="fake",version="2"} 1.0' in page
    assert 'version="1"' not in page


async def test_it_is_noticed_by_itself_once_it_comes_to_rest(tmp_path: Path) -> None:
    async with house(tmp_path, model_poll_s=0.02) as made:
        made.put("2")
        for _ in range(500):
            await asyncio.sleep(0.01)
            if await made.version() == "2":
                break
        assert await made.version() == "2"
        os.utime(tmp_path / FILE_NAME)  # touched, not changed
        await asyncio.sleep(0.1)
    assert len(made.engines) == 2


async def test_a_model_that_comes_while_the_first_one_warms_up_is_noticed(tmp_path: Path) -> None:
    made = House(tmp_path)
    made.put("1")
    made.next.before = lambda _batch: made.put("2") if len(made.engines) == 1 else None
    made.app = create_app(Settings(model=tmp_path, model_poll_s=0.02), engine_factory=made.open)
    async with serving_app(made.app) as client:
        made.client = client
        assert await made.version() == "1"
        for _ in range(500):
            await asyncio.sleep(0.01)
            if await made.version() == "2":
                break
        assert await made.version() == "2"


async def test_a_broken_manifest_is_refused_and_the_old_model_stays(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        (tmp_path / FILE_NAME).write_text('{"name": "half')
        await made.tried()
        assert (await made.client.post("/segment", content=PNG)).json()["version"] == "1"
        ready = await made.ready()
        assert ready["status"] == "ready"
        assert "is not a model manifest" in ready["refused_model"]
        assert 'alignseg_model_swaps_total{outcome="refused"} 1.0' in (await made.client.get("/metrics")).text
        made.put("2")
        await made.tried()
        assert await made.ready() == {"status": "ready", "model": "fake", "version": "2"}


async def test_a_model_that_does_not_warm_up_is_refused(tmp_path: Path) -> None:
    def fail(_batch: object) -> None:
        raise EngineError("no kernel for this device")

    async with house(tmp_path) as made:
        made.put("2")
        made.next.before = fail
        await made.tried()
        assert (await made.client.post("/segment", content=PNG)).json()["version"] == "1"
        assert "no kernel for this device" in (await made.ready())["refused_model"]
        await asyncio.sleep(0.05)
        assert [engine.closed for engine in made.engines] == [False, True]


async def test_an_engine_that_does_not_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as made:
        made.put("2")
        monkeypatch.setattr(made, "next", None)
        made.app.state.watch._load = lambda manifest: 1 / 0
        await made.tried()
        assert await made.version() == "1"
        assert "division by zero" in (await made.ready())["refused_model"]


async def test_swaps_under_load_lose_no_request(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        stop = asyncio.Event()
        versions: list[str] = []

        async def client() -> None:
            while not stop.is_set():
                response = await made.client.post("/segment", content=PNG)
                assert response.status_code == 200, response.text
                versions.append(response.json()["version"])

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for version in range(2, 7):
            made.put(str(version))
            await made.tried()
            for _ in range(1000):  # until the new one answers, and the next may come
                await asyncio.sleep(0.005)
                if versions[-16:].count(str(version)) > 8:
                    break
        stop.set()
        await asyncio.gather(*clients)
    assert {"2", "3", "4", "5", "6"} <= set(versions)


async def test_work_that_has_begun_ends_with_the_model_it_began_with(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        gate = fake_engine.Gate()
        made.engines[0].before = gate
        begun = asyncio.create_task(made.client.post("/segment", content=PNG))
        await asyncio.to_thread(gate.entered.wait, 10)
        made.put("2")
        await made.tried()
        assert (await made.client.post("/segment", content=PNG)).json()["version"] == "2"
        assert not made.engines[0].closed
        gate.opened.set()
        assert (await begun).json()["version"] == "1"


async def test_a_newly_built_engine_is_taken(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.tried()
        assert len(home.engines) == 1
        (tmp_path / "engines").mkdir()
        (tmp_path / "engines" / "h200.json").write_text("{}")  # its description; what it says is the opener's business
        await home.tried()
        assert len(home.engines) == 2
        await home.tried()
        assert len(home.engines) == 2
