"""Types of configuration keys, with their ranges."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from transformer.config_file import MAX_INT, plain_name, plain_text
from transformer.config_values import no_number
from transformer.files import expand_home
from transformer.sections.validation_set import validation_set

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
NormalizationRule = Literal["minimal", "identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"]
TokenizerType = Literal["bpe", "unigram"]

Filter = Literal["copies", "encoding", "markup", "no_letters", "numbers"]
HeldOut = Literal["validation", "test"]

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# A configuration may come with a model from anywhere, so sizes are limited.
Size = Annotated[int, Field(ge=1, le=2**20)]
SizeFromZero = Annotated[int, Field(ge=0, le=2**20)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
CountFromZero = Annotated[int, Field(ge=0, le=MAX_INT)]
BoundedCount = Annotated[int, Field(ge=1, le=10**9)]
VocabSize = Annotated[int, Field(ge=8, le=2**20)]
Length = Annotated[int, Field(ge=2, le=2**20)]
Offset = Annotated[int, Field(ge=0, le=10_000)]
Switch = Literal["auto"] | bool
Threads = Annotated[int, Field(ge=1, le=1024)]
Beam = Annotated[int, Field(ge=1, le=1000)]
Coverage = Annotated[float, Field(ge=0.98, le=1)]  # SentencePiece's limits
Fraction = Annotated[float, Field(ge=0, lt=1)]
Temperature = Annotated[float, Field(gt=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Exponent = Annotated[float, Field(ge=0, le=10)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=True)]  # infinity switches a limit off
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=True)]
Weight = Annotated[float, Field(gt=0, le=1000)]
Text = Annotated[str, AfterValidator(plain_text)]
NonEmptyText = Annotated[str, Field(min_length=1), AfterValidator(plain_text)]
PathText = Annotated[Text, AfterValidator(expand_home)]
NonEmptyPath = Annotated[NonEmptyText, AfterValidator(expand_home)]
ValidationSetText = Annotated[str, AfterValidator(validation_set)]
PlainName = Annotated[str, AfterValidator(plain_name), AfterValidator(plain_text)]
LengthPenalty = Annotated[Literal["gnmt", "power", "none"], BeforeValidator(no_number)]


def tag_name(value: str) -> str:
    """ValueError unless a tag is in angle brackets, and neither a special nor a byte piece."""
    if not re.fullmatch(r"<[^\s<>▁▅]+>|>>[^\s<>▁▅]+<<", value) or re.fullmatch(r"<(unk|/?s|pad|0x[0-9A-F]{2})>", value):
        raise ValueError("must be one word in angle brackets, such as <bt> or <2de>, and no piece such as <s>")
    return value


Tag = Annotated[Text, AfterValidator(tag_name)]

# `auto`, or one of sacreBLEU's.
BleuTokenizer = Literal[
    "auto", "13a", "char", "flores101", "flores200", "intl", "ja-mecab", "ko-mecab", "none", "spBLEU-1K", "spm", "zh"
]
