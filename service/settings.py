"""All settings of the server, read from ALIGNSEG_* environment variables, and their table for docs/operations.md."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args, get_origin

from pydantic import Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ALIGNSEG_"
KEEP_ALIVE_S: Final = 75.0
REPOSITORY = Path(__file__).resolve().parent.parent
LogFormat = Literal["auto", "json", "text"]
EngineName = Literal[
    "auto", "tensorrt", "onnxruntime-cuda", "openvino-int8", "openvino-bf16", "openvino-cpu", "onnxruntime-cpu"
]


class Settings(BaseSettings):
    """Frozen: the values of the start hold until the process ends. An empty variable means the default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    model: Path = Field(
        default=REPOSITORY / "weights" / "alignseg-lite",
        description="Model folder: model.json and the files it names. May be a symbolic link.",
    )
    engine: EngineName = Field(
        default="auto",
        description="Runtime. auto chooses the fastest that is installed, finds its device and passes its check.",
    )
    build_engine: Literal["off", "auto"] = Field(
        default="off",
        description="auto builds a missing TensorRT engine in the background, while another runtime serves.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. 0.0.0.0 accepts connections from other machines.",
    )
    port: int = Field(
        default_factory=lambda: os.environ.get("PORT") or 8000,
        validate_default=True,
        ge=0,
        le=65535,
        description="Port to listen on; 0 lets the system choose. Cloud Run, Heroku and others set `PORT`.",
        json_schema_extra={"default": "`PORT`, else `8000`"},
    )
    admin_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for /healthz and /metrics instead of the main one; 0 lets the system choose.",
    )
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for gRPC, the Open Inference Protocol; 0 lets the system choose. Needs the extra `grpc`.",
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="API keys, separated by commas. With neither keys nor a keys file, no key is required.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with one API key per line; text after # is a comment. Added to ALIGNSEG_API_KEYS.",
    )
    root_path: str = Field(
        default="",
        description="Path under which a proxy serves this server, such as /alignseg. The proxy may remove it or not.",
    )
    keep_alive_s: float = Field(
        default=KEEP_ALIVE_S,
        gt=0,
        description="How long an idle connection stays open. Must be longer than a load balancer keeps it.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose web pages may call the API, separated by commas, such as https://app.example.com, "
        "https://*.example.com or `*`. None by default.",
    )
    log: LogFormat = Field(default="auto", description="Log format. auto writes text to a terminal, else JSON.")
    model_poll_s: float = Field(
        default=2.0, ge=0, description="How often the model folder is checked for a new model. 0 checks on SIGHUP only."
    )

    intra_op_threads: int = Field(
        default=0,
        ge=0,
        description="Threads of one inference on the CPU. 0: the runtime decides, usually one per core.",
    )
    codec_threads: int = Field(
        default_factory=lambda: min(8, os.cpu_count() or 1),
        ge=1,
        description="Threads that decode images and render responses.",
        json_schema_extra={"default": "one for each core, at most 8"},
    )

    max_in_flight: int = Field(
        default=64, ge=1, description="Requests in flight, uploads included. More get 429. Lower it to limit latency."
    )
    max_bytes_in_flight: int = Field(
        default=256 * 1024 * 1024,
        ge=1,
        description="Bodies of all active requests together. One without Content-Length counts as 1 MiB, or as it "
        "grows.",
    )
    max_pixels_in_flight: int = Field(
        default=80_000_000,
        ge=1,
        description="Decoded images of all requests in flight. Limits memory: 3 bytes per pixel.",
    )
    overload_latency_ms: float = Field(
        default=60.0, gt=0, description="Target latency under overload: requests that would exceed it get 429."
    )
    max_queue_delay_ms: float = Field(
        default=0.0,
        ge=0,
        description="How long an image may wait for others to fill its batch. 0 never leaves an engine idle.",
    )
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1, description="Body of one request.")
    max_pixels: int = Field(
        default=40_000_000, ge=1, description="Width times height of one image, checked before it is decoded."
    )
    max_tiles: int = Field(default=192, ge=1, description="Tiles of one image.")
    max_images: int = Field(default=16, ge=1, description="Images of one request.")

    request_timeout_ms: float = Field(
        default=30_000.0,
        gt=0,
        description="From the request's head to its response. Work is not computed after its deadline.",
    )
    engine_hang_s: float = Field(
        default=120.0, gt=0, description="How long one engine call may take before /healthz/live fails."
    )
    drain_timeout_s: float = Field(
        default=30.0,
        ge=0,
        description="How long SIGTERM waits for requests in flight. The orchestrator's grace period must be longer.",
    )

    @field_validator("root_path")
    @classmethod
    def _path(cls, value: str) -> str:
        """/alignseg, alignseg and /alignseg/ mean the same; / means none."""
        path = value.strip().strip("/")
        if not re.fullmatch(r"[\w.~!$&'()+,=@%/-]*", path, re.ASCII) or "//" in path:
            raise ValueError("Expected a path such as /alignseg")
        return f"/{path}" if path else ""


class Row(NamedTuple):
    """One setting. value: its unit, its choices or its type."""

    variable: str
    default: str
    value: str
    description: str


def table() -> Iterator[Row]:
    """Every setting, in order, the same on every machine."""
    for name, field in Settings.model_fields.items():
        yield Row(variable(name), _default(field), _value(name, field), field.description or "")


def markdown_table() -> str:
    """`table` in Markdown, as docs/operations.md has it between <!-- settings --> and <!-- /settings -->."""
    rows = [f"| `{row.variable}` | {row.default} | {row.value} | {row.description} |" for row in table()]
    return "\n".join(["| variable | default | unit or value | meaning |", "|---|---|---|---|", *rows])


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


_UNITS: Final = ("bytes", "pixels", "tiles", "images", "threads", "port")
_MIB: Final = 1024 * 1024
_SUFFIXES: Final = {"_ms": "milliseconds", "_s": "seconds", "_in_flight": "requests"}
_NOT_SETTINGS: Final = frozenset({"ALIGNSEG_API_KEY"})  # the client's
_KUBERNETES_SUFFIXES: Final = ("_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO")


def _default(field: FieldInfo) -> str:
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["default"])
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, Path):
        return f"`{value.relative_to(REPOSITORY).as_posix()}`"
    if isinstance(value, int) and value >= _MIB and value % _MIB == 0:
        return f"`{value}` ({value // _MIB} MiB)"
    if isinstance(value, (int, float)):
        return f"`{value:.15g}`"  # without a float's .0
    return f"`{value}`" if value else "not set"


def _value(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    unit: str | None = next((word for word in _UNITS if word in name.split("_")), None)
    unit = unit or next((word for suffix, word in _SUFFIXES.items() if name.endswith(suffix)), None)
    is_path = field.annotation is Path or Path in get_args(field.annotation)
    return unit or ("path" if is_path else "text")


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """A warning for each ALIGNSEG_* variable that is not a setting, with the nearest name."""
    known = {variable(name) for name in Settings.model_fields} | _NOT_SETTINGS
    names = [one.removeprefix(PREFIX) for one in sorted(known)]  # the common prefix would make all of them similar
    lines = []
    for name in sorted(environment):
        # Kubernetes sets ALIGNSEG_SERVICE_HOST and the like for a Service named alignseg.
        if name.upper().startswith(PREFIX) and name.upper() not in known and not name.endswith(_KUBERNETES_SUFFIXES):
            near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, n=1)
            lines.append(f"Unknown setting {name}, ignored." + (f" Did you mean {PREFIX}{near[0]}?" if near else ""))
    return lines
