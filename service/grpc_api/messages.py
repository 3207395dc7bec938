"""The messages of open_inference.proto as classes, and Python dicts as messages.

They are in a pool of their own: the default pool of a process has one definition of `inference.ModelInferRequest`, and
Triton's client, which may be imported beside this server, brings its own.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from google.protobuf import (  # type: ignore[import-untyped, unused-ignore]
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
)

PACKAGE: Final = "inference"
_POOL: Final = descriptor_pool.DescriptorPool()
_FILES: Final = descriptor_pb2.FileDescriptorSet.FromString(
    (resources.files("service.grpc_api") / "open_inference.binpb").read_bytes()
)
for _file in _FILES.file:
    _POOL.Add(_file)


def message(name: str) -> Any:
    """The class of a message, such as ModelInferRequest."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def serialized(name: str, members: Mapping[str, Any]) -> bytes:
    """A message with these members, in JSON's types (https://protobuf.dev/programming-guides/json/)."""
    content: bytes = json_format.ParseDict(members, message(name)()).SerializeToString()
    return content
