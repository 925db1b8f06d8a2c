"""Sources on pages are those of the package, without docstrings; their links lead to the reference."""

from __future__ import annotations

import inspect

import pytest
from website.sources import api_address, code_of

from transformer.errors import DataError
from transformer.model.attention import DotProductAttention
from transformer.model.transformer import DecoderState

ATTENTION = "transformer.model.attention.DotProductAttention"


def test_the_lines_are_those_of_the_file_without_indent_and_docstring() -> None:
    code = code_of(f"{ATTENTION}.forward").splitlines()
    assert code[0].startswith("def forward(self, q: Tensor")
    assert code[1].strip() == "if kernels.prefers_fused(q, k):"
    lines = [line.strip() for line in inspect.getsource(DotProductAttention).splitlines()]
    assert [line for line in code if line.strip() not in lines] == []


def test_a_class_loses_the_blank_line_behind_its_docstring() -> None:
    assert code_of(ATTENTION).splitlines()[1].strip() == "def __init__(self, dropout: float = 0.0) -> None:"


def test_decorators_properties_and_docstrings_that_are_all_stay() -> None:
    assert code_of("transformer.model.transformer.DecoderState.length").startswith("@property\ndef length(self)")
    assert code_of("transformer.model.transformer.DecoderState").startswith("@dataclass(frozen=True)")
    assert '"""' in code_of("transformer.model.kernels.PackedMask.check")
    assert DecoderState.length.fget is not None


@pytest.mark.parametrize("name", ["transformer.no_such", f"{ATTENTION}.no_such", "no_such.module", "math.sqrt", ""])
def test_a_name_without_a_source_is_an_error(name: str) -> None:
    with pytest.raises(DataError, match=rf"^source: {name}: has no source: "):
        code_of(name)


def test_addresses_are_those_of_the_reference() -> None:
    page = "transformer/model/attention.html"
    assert api_address("transformer.model.attention.padding_mask") == f"{page}#padding_mask"
    assert api_address(f"{ATTENTION}.scores") == f"{page}#DotProductAttention.scores"
    assert api_address("transformer.model.attention.MultiHeadAttention._split_heads") == page, "which it does not show"
    assert api_address("transformer.model") == "transformer/model.html"
