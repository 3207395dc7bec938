"""The graph outputs of a serialized ONNX model: list them, and take some out with all that only they need.

RunOptions.only_execute_path_to_fetches would be the way, but inference builds of ONNX Runtime (1.32 among them) take
the option and compute everything nevertheless; nor do they drop nodes that nothing needs. The service does not depend
on `onnx`, so this walks the protobuf wire format itself: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable, Container, Iterator
from typing import Final

# Field numbers of onnx.proto.
_GRAPH: Final = 7  # ModelProto.graph
_NODE: Final = 1  # GraphProto.node
_OUTPUT: Final = 12  # GraphProto.output
_NAME: Final = 1  # ValueInfoProto.name
_INPUTS: Final = 1  # NodeProto.input
_OUTPUTS: Final = 2  # NodeProto.output
_ATTRIBUTE: Final = 5  # NodeProto.attribute
_SUBGRAPHS: Final = (6, 11)  # AttributeProto.g, AttributeProto.graphs
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, memoryview, memoryview]  # number, the whole field with its tag, its content when length-delimited


def output_names(model: bytes) -> list[str]:
    """Names of the graph's outputs. Raises ValueError when `model` is not protobuf."""
    graphs = (content for number, _, content in _fields(memoryview(model)) if number == _GRAPH)
    return [_name(content) for graph in graphs for number, _, content in _fields(graph) if number == _OUTPUT]


def keep_outputs(model: bytes, names: Container[str]) -> bytes:
    """The same model with only those of its graph outputs that are in `names`, and the nodes these need.

    Raises ValueError when `model` is not protobuf.
    """
    return _rewritten(memoryview(model), _GRAPH, lambda graph: _without_outputs(graph, names))


def _without_outputs(graph: memoryview, names: Container[str]) -> bytes:
    """Nodes come before those that use them (ONNX IR), so one pass from the end finds all that is needed."""
    needed: set[str] = set()
    kept: list[memoryview] = []
    outputs_last = sorted(_fields(graph), key=lambda field: field[0] == _OUTPUT)
    for number, whole, content in reversed(outputs_last):
        if number == _OUTPUT:
            if (name := _name(content)) not in names:
                continue
            needed.add(name)
        elif number == _NODE:
            if needed.isdisjoint(_strings(content, _OUTPUTS)):
                continue
            needed.update(_used(content))
        kept.append(whole)
    return b"".join(reversed(kept))


def _used(node: memoryview) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs (If, Loop, Scan) read included."""
    yield from _strings(node, _INPUTS)
    for number, _, attribute in _fields(node):
        if number != _ATTRIBUTE:
            continue
        subgraphs = (content for number, _, content in _fields(attribute) if number in _SUBGRAPHS)
        for graph in subgraphs:
            yield from _read_in(graph)


def _read_in(graph: memoryview) -> Iterator[str]:
    for number, _, content in _fields(graph):
        if number == _NODE:
            yield from _used(content)
        elif number == _OUTPUT:  # a branch may hand through a name from outside
            yield _name(content)


def _strings(message: memoryview, wanted: int) -> Iterator[str]:
    return (str(content, "utf-8") for number, _, content in _fields(message) if number == wanted)


def _name(value_info: memoryview) -> str:
    return next(_strings(value_info, _NAME), "")


def _rewritten(message: memoryview, number: int, rewrite: Callable[[memoryview], bytes]) -> bytes:
    """The message with the content of each field `number` rewritten."""
    parts: list[bytes | memoryview] = []
    for found, whole, content in _fields(message):
        if found != number:
            parts.append(whole)
            continue
        new = rewrite(content)
        parts += [_varint(number << 3 | _BYTES), _varint(len(new)), new]
    return b"".join(parts)


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        tag, begin = _read_varint(message, at)
        end = _end_of(message, tag & 7, begin)
        if end > len(message):
            raise ValueError(f"a field of {end - at} bytes at byte {at} of {len(message)}: the file is cut off")
        content = message[_read_varint(message, begin)[1] : end] if tag & 7 == _BYTES else message[:0]
        yield tag >> 3, message[at:end], content
        at = end


def _end_of(message: memoryview, wire_type: int, begin: int) -> int:
    if wire_type == _VARINT:
        return _read_varint(message, begin)[1]
    if wire_type == _BYTES:
        length, content = _read_varint(message, begin)
        return content + length
    if wire_type in {_FIXED64, _FIXED32}:
        return begin + (8 if wire_type == _FIXED64 else 4)
    raise ValueError(f"wire type {wire_type} at byte {begin}: not a protobuf message")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"the file ends in the middle of a number at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
