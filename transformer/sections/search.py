"""The section `search`."""

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.sections.types import (
    STRICT,
    Beam,
    Exponent,
    Offset,
    Size,
)


@one_line_errors("search.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class SearchConfig:
    """Beam search (section 6.1)."""

    beam: Beam = 4  # hypotheses per sentence; 1 is greedy search
    alpha: Exponent = 0.6  # exponent of the length penalty ((5 + |Y|) / 6)^alpha
    max_length_offset: Offset = 50  # maximum output length, </s> included, beyond the input's
    max_source_length: Size = 1024  # pieces of input, </s> included; longer input is an error, or see --too-long
