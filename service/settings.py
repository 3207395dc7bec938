"""Every knob of the server, read from ALIGNSEG_* environment variables."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ALIGNSEG_"
REPOSITORY = Path(__file__).resolve().parent.parent
LogFormat = Literal["auto", "json", "text"]
EngineName = Literal[
    "auto", "tensorrt", "onnxruntime-cuda", "openvino-int8", "openvino-bf16", "openvino-cpu", "onnxruntime-cpu"
]


class Settings(BaseSettings):
    """Frozen: what the process started with is what it runs with. Each name carries its unit.

    model: folder with a model.json and the files it names.
    engine: which runtime; auto takes the best one that is installed and has a device.
    build: auto builds a missing TensorRT engine in the background, while another runtime serves.
    admin_port: where health and metrics are served instead, if set; 0 lets the system choose.
    api_keys, api_keys_file: who has none of them is answered 401; see keys.py. None set: everybody is let in.
    cors_origins: web sites, separated by commas, whose pages may ask; empty: none but our own.
    log: json, text, or auto: text on a terminal, else json.
    model_poll_s: how often the model folder is looked at for a new model; 0: only on SIGHUP.
    intra_op_threads: threads of one inference; 0 leaves it to the runtime (one a core).
    codec_threads: threads that decode and encode.
    max_in_flight: requests inside the house at once, uploads included; one more is answered 429.
    max_bytes_in_flight: of all their bodies together; a body without Content-Length counts as the largest.
    max_pixels_in_flight: of all pictures that are decoded at one time.
    overload_latency_ms: how long accepted requests may take while others have to be turned away.
    max_queue_delay_ms: how long the oldest waiting picture may wait for company; 0 never idles.
    max_pixels: width times height of one picture, checked before it is decoded.
    max_tiles: how many tiles ?tile=true may cut a picture into.
    max_images: how many pictures one request may bring.
    request_timeout_ms: from the head of a request to its answer; late work is not computed.
    engine_hang_s: how long one call of the engine may take before liveness fails.
    drain_timeout_s: how long SIGTERM waits for accepted work.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    model: Path = REPOSITORY / "weights" / "alignseg-lite"
    engine: EngineName = "auto"
    build: Literal["off", "auto"] = "off"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    admin_port: int | None = Field(default=None, ge=0, le=65535)
    api_keys: SecretStr = SecretStr("")
    api_keys_file: Path | None = None
    cors_origins: str = ""
    log: LogFormat = "auto"
    model_poll_s: float = Field(default=2.0, ge=0)

    intra_op_threads: int = Field(default=0, ge=0)
    codec_threads: int = Field(default=min(8, os.cpu_count() or 1), ge=1)

    max_in_flight: int = Field(default=64, ge=1)
    max_bytes_in_flight: int = Field(default=256 * 1024 * 1024, ge=1)
    max_pixels_in_flight: int = Field(default=80_000_000, ge=1)
    overload_latency_ms: float = Field(default=60.0, gt=0)
    max_queue_delay_ms: float = Field(default=0.0, ge=0)
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_tiles: int = Field(default=192, ge=1)
    max_images: int = Field(default=16, ge=1)

    request_timeout_ms: float = Field(default=30_000.0, gt=0)
    engine_hang_s: float = Field(default=120.0, gt=0)
    drain_timeout_s: float = Field(default=30.0, ge=0)


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


_OTHERS = frozenset({"ALIGNSEG_API_KEY"})  # the client's
_OF_KUBERNETES = ("_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO")


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """A warning for each ALIGNSEG_* variable that is not a setting, with the nearest name."""
    known = {variable(name) for name in Settings.model_fields} | _OTHERS
    lines = []
    for name in sorted(environment):
        # Kubernetes sets ALIGNSEG_SERVICE_HOST and the like for a Service that is called alignseg.
        if name.upper().startswith(PREFIX) and name.upper() not in known and not name.endswith(_OF_KUBERNETES):
            names = [one.removeprefix(PREFIX) for one in sorted(known)]  # all begin alike: that makes none similar
            near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, n=1)
            lines.append(f"Unknown setting {name}, ignored." + (f" Did you mean {PREFIX}{near[0]}?" if near else ""))
    return lines
