"""The wire format of protocol buffers."""

from __future__ import annotations

import pytest

from transformer.data.protobuf import read_fields, read_number, wire_type, write_field, write_fixed32, write_number


def test_fields_of_all_kinds_are_told_apart() -> None:
    # By hand: 150 in field 1, then "ab" in field 17, four bytes in field 3, eight in field 4.
    message = b"\x08\x96\x01" + write_field(17, b"ab") + b"\x1d1234" + b"\x2112345678"
    assert [(number, content) for number, _, content in read_fields(message)] == [
        (1, b""),
        (17, b"ab"),
        (3, b"1234"),
        (4, b"12345678"),
    ]
    assert write_field(17, b"ab") == b"\x8a\x01\x02ab"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31 - 1])
def test_a_number_comes_back_from_its_field(value: int) -> None:
    ((number, field, content),) = read_fields(write_number(40, value))
    assert (number, content, read_number(field)) == (40, b"", value)


def test_a_negative_number_is_ten_bytes_of_its_complement() -> None:
    assert read_number(b"\xd8\x02" + b"\xff" * 9 + b"\x01") == -1


def test_four_bytes_are_kept_as_they_are() -> None:
    assert list(read_fields(write_fixed32(2, b"abcd"))) == [(2, b"\x15abcd", b"abcd")]


@pytest.mark.parametrize("message", [b"\x0a\x05ab", b"\x0a", b"\x80", b"\x1d12"])
def test_a_message_that_ends_in_a_field_is_an_error(message: bytes) -> None:
    with pytest.raises(IndexError):
        list(read_fields(message))


def test_a_group_is_one_field_with_all_that_it_holds() -> None:
    # By hand: group 9 with a number and with group 2, which holds "ab" and is empty otherwise; then a number.
    group = b"\x4b" + b"\x08\x01" + b"\x13" + b"\x0a\x02ab" + b"\x14" + b"\x4c"
    fields = list(read_fields(group + b"\x10\x05"))
    assert fields == [(9, group, b""), (2, b"\x10\x05", b"")]
    with pytest.raises(IndexError):
        list(read_fields(group[:-1]))


def test_each_field_has_a_wire_type() -> None:
    fields = (write_number(3, 5), write_field(3, b"ab"), write_fixed32(3, b"abcd"), write_number(300, 5))
    assert [wire_type(field) for field in fields] == [0, 2, 5, 0]
