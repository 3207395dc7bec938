"""Every knob of the server, read from ALIGNSEG_* environment variables."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent
EngineName = Literal["auto", "onnxruntime-cpu"]


class Settings(BaseSettings):
    """Frozen: what the process started with is what it runs with. Each name carries its unit.

    model: folder with a model.json and the files it names.
    engine: which runtime; auto takes the best one that is installed and has a device.
    intra_op_threads: threads of one inference; 0 leaves it to the runtime (one a core).
    codec_threads: threads that decode, and as many again that encode.
    max_in_flight: requests inside the house at once, uploads included; one more is answered 429.
    max_queue_delay_ms: how long the oldest waiting picture may wait for company; 0 never idles.
    max_pixels: width times height of one picture, checked before it is decoded.
    max_tiles: how many tiles ?tile=true may cut a picture into.
    max_pictures: how many pictures one request may bring.
    request_timeout_ms: from the head of a request to its answer; late work is not computed.
    drain_timeout_s: how long SIGTERM waits for accepted work.
    """

    model_config = SettingsConfigDict(env_prefix="ALIGNSEG_", frozen=True)

    model: Path = REPOSITORY / "weights" / "alignseg-lite"
    engine: EngineName = "auto"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)

    intra_op_threads: int = Field(default=0, ge=0)
    codec_threads: int = Field(default=min(4, os.cpu_count() or 1), ge=1)

    max_in_flight: int = Field(default=64, ge=1)
    max_queue_delay_ms: float = Field(default=0.0, ge=0)
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_tiles: int = Field(default=64, ge=1)
    max_pictures: int = Field(default=16, ge=1)

    request_timeout_ms: float = Field(default=30_000.0, gt=0)
    drain_timeout_s: float = Field(default=30.0, ge=0)
