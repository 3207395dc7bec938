"""Mutated images over real HTTP: no 5xx, no hang, no growth.

    python -m benchmarks.server.fuzz_decoder --count 10000

Every request is one mutation of a small JPEG, PNG, WebP or TIFF in one of several modes. A failing file is kept under
/tmp/alignseg-fuzz and named in the report.
"""

import argparse
import asyncio
import hashlib
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import numpy as np
from PIL import Image

from benchmarks.harness import ServerProcess, fake_engine_server, percentiles, report, serving

CLIENTS: Final = 8
TIMEOUT_S: Final = 30.0  # longer is a hang
KEPT: Final = Path("/tmp/alignseg-fuzz")  # noqa: S108 - named in the help
_ALLOWED: Final = frozenset({200, 400, 413, 415, 429})
Mutation = Callable[[bytearray, random.Random], bytearray]


def seeds() -> list[bytes]:
    """Small images of every format, in the modes and compressions that users send."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([x * 4, y * 5, rng.integers(0, 256, x.shape)], axis=2).astype(np.uint8)
    color = Image.fromarray(rgb)
    deep = Image.fromarray((x * 1000).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (color, "JPEG", {}), (color, "JPEG", {"progressive": True, "exif": exif}), (color.convert("L"), "JPEG", {}),
        (color.convert("CMYK"), "JPEG", {}), (color, "PNG", {}), (color.convert("RGBA"), "PNG", {}),
        (color.convert("P"), "PNG", {"transparency": 3}), (color.convert("1"), "PNG", {}), (deep, "PNG", {}),
        (color, "WEBP", {}), (color, "WEBP", {"lossless": True}), (color.convert("RGBA"), "WEBP", {}),
        (color, "TIFF", {}), (color, "TIFF", {"compression": "tiff_lzw"}), (color, "TIFF", {"compression": "jpeg"}),
        (deep, "TIFF", {}), (color.convert("1"), "TIFF", {"compression": "group4"}),
        (color, "TIFF", {"compression": "tiff_adobe_deflate"}),
    ]  # fmt: skip
    return [_saved(*kind) for kind in kinds]


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _flip_head(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 200))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return data


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def _delete(data: bytearray, rng: random.Random) -> bytearray:
    begin = rng.randrange(len(data))
    del data[begin : begin + rng.randrange(1, 64)]
    return data or bytearray(b"\0")


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    begin = rng.randrange(len(data))
    part = data[begin : begin + rng.randrange(1, 256)]
    data[begin:begin] = part * rng.choice((1, 2, 50))
    return data


def _number(data: bytearray, rng: random.Random) -> bytearray:
    """Extreme sizes and offsets, in both byte orders."""
    at = rng.randrange(max(1, len(data) - 4))
    value = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 40_000, 100_000))
    data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))
    return data


MUTATIONS: Final[Sequence[Mutation]] = (_flip, _flip_head, _flip_head, _cut, _delete, _repeat, _number, _number)


def mutated(seed_files: Sequence[bytes], index: int) -> bytes:
    """Mutation number `index`: always the same bytes."""
    rng = random.Random(index)
    data = bytearray(rng.choice(seed_files))
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


async def send_all(url: str, count: int, clients: int = CLIENTS) -> tuple[Counter[str], list[float], list[str]]:
    """Send `count` mutations; returns statuses, milliseconds, and failures."""
    files, statuses, times, failures = seeds(), Counter[str](), list[float](), list[str]()
    numbers = iter(range(count))
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, headers={"Accept": "image/png"}) as client:

        async def work() -> None:
            for number in numbers:
                data, began = mutated(files, number), time.monotonic()
                status = await _send(client, data)
                times.append((time.monotonic() - began) * 1e3)
                statuses[status] += 1
                if not status.isdecimal() or int(status) not in _ALLOWED:
                    failures.append(f"mutation {number}: {status}, kept as {_keep(data)}")

        await asyncio.gather(*(work() for _ in range(clients)))
    return statuses, times, failures


async def _send(client: httpx.AsyncClient, data: bytes) -> str:
    for _ in range(20):
        try:
            response = await client.post("/segment", content=data)
        except httpx.HTTPError as error:
            return type(error).__name__
        if response.status_code != 429:
            break
        await asyncio.sleep(float(response.headers["retry-after-ms"]) / 1e3)
    return str(response.status_code)


def _keep(data: bytes) -> Path:
    KEPT.mkdir(exist_ok=True)
    path = KEPT / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def run(server: ServerProcess, count: int, rounds: int) -> dict[str, Any]:
    """Fuzz a running server, `rounds` times with the same mutations: memory that grows every time is leaked.

    The heap settles in the first third of the rounds, in steps of some megabytes; so growth is that of the last third
    over the middle one, each by its median.
    """
    third = max(1, rounds // 3)
    url, began = f"http://127.0.0.1:{server.port}", time.monotonic()
    rest_mb = server.rss()
    statuses, times, failures = asyncio.run(send_all(url, count))
    seconds, memory_mb, same_every_round = time.monotonic() - began, [server.rss()], True
    for _ in range(rounds - 1):
        again, _, more_failures = asyncio.run(send_all(url, count))
        memory_mb.append(server.rss())
        failures += more_failures
        same_every_round &= again == statuses
    return {
        "mutations": count,
        "seconds": round(seconds, 1),
        "statuses": dict(sorted(statuses.items())),
        "latency_ms": {**percentiles(times), "max": round(max(times), 1)},
        "failures": failures[:20],
        "same_every_round": same_every_round,
        "memory_mb": {"at_rest": round(rest_mb, 1), "after_rounds": [round(mb, 1) for mb in memory_mb]},
        "growth": round(median(memory_mb[-third:]) / median(memory_mb[-2 * third : -third]) - 1, 4),
        "tracebacks_in_log": sum("Traceback" in line for line in server.log),
    }


def main() -> None:
    """Command line; exit code 1 on any failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with serving(fake_engine_server(0.3)) as server:
        results = run(server, options.count, options.rounds)
    report("fuzz-decoder", results)
    raise SystemExit(bool(results["failures"] or results["tracebacks_in_log"]))


if __name__ == "__main__":
    main()
