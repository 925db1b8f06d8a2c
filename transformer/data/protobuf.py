"""Just enough of the wire format of protocol buffers: a SentencePiece model is a list of numbered fields."""

from collections.abc import Iterator

_LENGTH_DELIMITED, _FIXED_SIZES = 2, {1: 8, 5: 4}


def read_fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, bytes and content of each field; a varint's content is empty. IndexError if it ends in a field."""
    start = 0
    while start < len(message):
        tag, end = _read_varint(message, start)
        kind = tag & 7
        size = _FIXED_SIZES.get(kind, 0)
        if kind not in _FIXED_SIZES:
            number, end = _read_varint(message, end)
            size = number if kind == _LENGTH_DELIMITED else 0
        if end + size > len(message):
            raise IndexError("a field is cut off")
        yield tag >> 3, message[start : end + size], message[end : end + size]
        start = end + size


def read_number(field: bytes) -> int:
    """The value of a varint field, given with its tag; signed, as int32 is."""
    _, start = _read_varint(field, 0)
    value = _read_varint(field, start)[0] & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def write_field(number: int, content: bytes) -> bytes:
    """A field of bytes, of text or of another message."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def write_number(number: int, value: int) -> bytes:
    """A varint field with a value that is not negative."""
    return _varint(number << 3) + _varint(value)


def write_fixed32(number: int, content: bytes) -> bytes:
    """A field of four bytes, such as a float."""
    return _varint(number << 3 | 5) + content


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))
