"""The sizes of the frames in AV1 data, from their headers alone.

Reads as far as the size of a frame and no further. Source: AV1 Bitstream & Decoding Process Specification, 5.3 to 5.9.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from service.errors import CorruptImage, UnsupportedImage

_SEQUENCE, _FRAME_HEADER, _FRAME, _REDUNDANT = 1, 3, 6, 7  # OBU types
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SELECT: Final = 2
_MAX_UNITS: Final = 10_000


class Sequence(NamedTuple):
    """What a sequence header says of its frames.

    reduced: of a still image, whose one frame has the size of the sequence.
    id_bits: of a frame's own number, 0 for none.
    force_screen_content, force_integer_mv: 0, 1, or 2 where each frame says it.
    """

    width: int
    height: int
    reduced: bool
    id_bits: int
    force_screen_content: int
    force_integer_mv: int


def frame_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """(width, height) of each frame that a decoder would decode, hidden ones too.

    Raises CorruptImage, or UnsupportedImage for what still images do not have.
    """
    sequence = None
    for kind, payload in _units(data):
        if kind == _SEQUENCE:
            sequence = _sequence(_Bits(payload))
        elif kind in {_FRAME_HEADER, _FRAME, _REDUNDANT}:
            if sequence is None:
                raise CorruptImage("The AVIF has an AV1 frame without a sequence header. Send an undamaged file.")
            if sequence.reduced or not _is_shown_again(_Bits(payload)):
                if not sequence.reduced and _has_own_size(_Bits(payload), sequence):
                    raise UnsupportedImage("The AVIF has frames of another size than its sequence. Re-save the image.")
                yield sequence.width, sequence.height


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and first bytes of each open bitstream unit (OBU)."""
    at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(data):
            return
        head = data[at]
        at += 2 if head & 4 else 1  # an extension: layers
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        yield head >> 3 & 15, data[at : at + min(size, 64)]
        at += size
    raise CorruptImage(f"The AVIF has more than {_MAX_UNITS:,} units of AV1 data. Re-save the image.")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to eight bytes, seven bits in each, and the position behind it."""
    value = 0
    for index, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * index
        if not byte & 128:
            return value, at + index + 1
    raise CorruptImage("The AVIF has AV1 data that ends early. Send a complete, undamaged file.")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int = 1) -> int:
        """The next bits as a number. Raises CorruptImage at the end."""
        self._left -= count
        if self._left < 0:
            raise CorruptImage("The AVIF has an AV1 header that ends early. Send a complete, undamaged file.")
        return self._value >> self._left & (1 << count) - 1


def _sequence(bits: _Bits) -> Sequence:
    bits.take(3 + 1)  # profile, still_picture
    reduced = bool(bits.take())
    if reduced:
        bits.take(5)  # level
    else:
        _operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if reduced:
        return Sequence(width, height, True, 0, _SELECT, _SELECT)
    id_bits = 0
    if bits.take():  # frame_id_numbers_present_flag
        id_bits = bits.take(4) + 2
        id_bits += bits.take(3) + 1
    bits.take(3 + 4)  # superblocks, intra tools; inter tools
    if bits.take():  # enable_order_hint
        bits.take(2)
    screen_content = _SELECT if bits.take() else bits.take()
    integer_mv = _SELECT
    if screen_content:
        integer_mv = _SELECT if bits.take() else bits.take()
    return Sequence(width, height, False, id_bits, screen_content, integer_mv)


def _operating_points(bits: _Bits) -> None:
    if bits.take():  # timing_info_present_flag: of videos
        raise UnsupportedImage("The AVIF has the timing of a video, expected a still image. Re-save the image.")
    has_delay = bits.take()
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take()
        if has_delay and bits.take():
            bits.take(4)


def _is_shown_again(bits: _Bits) -> bool:
    """show_existing_frame: nothing is decoded."""
    return bool(bits.take())


def _has_own_size(bits: _Bits, sequence: Sequence) -> bool:
    """frame_size_override_flag."""
    bits.take()
    kind, is_shown = bits.take(2), bits.take()
    if not is_shown:
        bits.take()  # showable_frame
    if not (kind == _SWITCH_FRAME or (kind == _KEY_FRAME and is_shown)):
        bits.take()  # error_resilient_mode
    bits.take()  # disable_cdf_update
    screen_content = bits.take() if sequence.force_screen_content == _SELECT else sequence.force_screen_content
    if screen_content and sequence.force_integer_mv == _SELECT:
        bits.take()
    bits.take(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(bits.take())
