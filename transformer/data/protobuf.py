"""Just enough of the wire format of protocol buffers: a SentencePiece model is a list of numbered fields."""

from collections.abc import Iterator

VARINT, BYTES, FIXED32 = 0, 2, 5  # wire types
_GROUP, _GROUP_END = 3, 4
_FIXED_SIZES = {1: 8, FIXED32: 4}


def read_fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, bytes and content of each field; a varint's content is empty. IndexError if it ends in a field."""
    start = 0
    while start < len(message):
        content, end = _field_end(message, start)
        yield _read_varint(message, start)[0] >> 3, message[start:end], message[content:end]
        start = end


def wire_type(field: bytes) -> int:
    """The wire type of a field, given with its tag."""
    return field[0] & 7


def _field_end(message: bytes, start: int) -> tuple[int, int]:
    """Where the content of the field at `start` begins, and where it ends."""
    tag, end = _read_varint(message, start)
    kind = tag & 7
    size = _FIXED_SIZES.get(kind, 0)
    if kind == _GROUP:
        while _read_varint(message, end)[0] & 7 != _GROUP_END:
            end = _field_end(message, end)[1]
        end = content = _read_varint(message, end)[1]
    else:
        number, end = (0, end) if kind in _FIXED_SIZES else _read_varint(message, end)
        content, size = end, number if kind == BYTES else size
    if end + size > len(message):
        raise IndexError("a field is cut off")
    return content, end + size


def read_number(field: bytes) -> int:
    """The value of a varint field, given with its tag; signed, as int32 is."""
    _, start = _read_varint(field, 0)
    value = _read_varint(field, start)[0] & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def write_field(number: int, content: bytes) -> bytes:
    """A field of bytes, of text or of another message."""
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def write_number(number: int, value: int) -> bytes:
    """A varint field with a value that is not negative."""
    return _varint(number << 3) + _varint(value)


def write_fixed32(number: int, content: bytes) -> bytes:
    """A field of four bytes, such as a float."""
    return _varint(number << 3 | FIXED32) + content


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
