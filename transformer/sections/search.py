"""The section `search`."""

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.errors import ConfigError
from transformer.sections.types import (
    STRICT,
    Beam,
    Exponent,
    LengthPenalty,
    Offset,
    Size,
    SizeFromZero,
)


@one_line_errors("search.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class SearchConfig:
    """Beam search (section 6.1)."""

    beam: Beam = 4  # hypotheses per sentence; 1 is greedy search
    alpha: Exponent = 0.6  # exponent of the length penalty ((5 + |Y|) / 6)^alpha
    # gnmt: ((5 + |Y|) / 6)^alpha; power: |Y|^alpha, as of fairseq, Hugging Face and Marian; none: scores are log P
    length_penalty: LengthPenalty = "gnmt"
    max_length_offset: Offset = 50  # maximum output length, </s> included, beyond the input's
    max_length: Size | None = None  # maximum output length, </s> included, of any input; null: max_length_offset alone
    min_length: SizeFromZero = 0  # minimum output length, </s> included, where the maximum allows it
    no_repeat_ngram: SizeFromZero = 0  # no sequence of so many pieces comes twice in a translation; 0: any may
    allow_unknown: bool = True  # false: a translation has no unknown piece, which is shown as ⁇
    max_source_length: Size = 1024  # pieces of input, </s> included; longer input is an error, or see --too-long

    def __post_init__(self) -> None:
        if self.max_length is not None and self.min_length > self.max_length:
            raise ConfigError(f"search.min_length={self.min_length} is more than search.max_length={self.max_length}")
