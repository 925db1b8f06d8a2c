"""What requests and answers look like; OpenAPI describes them by these classes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_ALTERNATIVES = 100

Text = Annotated[str, Field(description="text; its lines are translated one by one, and their ends are kept")]
Texts = Annotated[Text | list[Text], Field(description="a text, or several; answers have the same form")]
Alternatives = Annotated[
    int,
    Field(ge=0, le=MOST_ALTERNATIVES, description="how many other translations to give, at most beam size - 1"),
]
SourceLanguage = Annotated[
    str, Field(description="code; empty: that of the first model; auto: the only one of the models, none is detected")
]
TargetLanguage = Annotated[str, Field(description="code; empty: that of the first model")]
ModelName = Annotated[str, Field(description="a name that /models lists; empty: the first with these languages")]


class LibreRequest(BaseModel):
    """A request to /translate, as LibreTranslate has it; further fields, such as api_key, have no effect."""

    q: Texts
    source: SourceLanguage = ""
    target: TargetLanguage = ""
    format: Literal["text", "html", ""] = Field(default="text", description="html: tags stay around their words")
    alternatives: Alternatives = 0


class LibreAnswer(BaseModel):
    """An answer of /translate, as LibreTranslate has it."""

    translatedText: str | list[str]  # noqa: N815 (the name in the API)
    alternatives: list[str] | list[list[str]] | None = Field(
        default=None, description="if asked for; distinct, best first"
    )


class Language(BaseModel):
    """A language, and those into which it is translated."""

    code: str
    name: str = Field(description="in English; the code, if it is not known")
    targets: list[str]


class Health(BaseModel):
    """Whether requests are accepted."""

    status: Literal["ok"]


class Error(BaseModel):
    """Why there is no answer."""

    error: str


class Direction(BaseModel):
    """A model, and from which language it translates into which."""

    name: str
    source: str
    source_name: str
    target: str
    target_name: str
    beam: int
    has_attention: bool = Field(description="false for an ensemble, which has no alignments either")


class _OwnRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: SourceLanguage = ""
    target: TargetLanguage = ""
    model: ModelName = ""


class TranslationsRequest(_OwnRequest):
    """A request for translations with all that is known of them."""

    q: Texts
    alternatives: Alternatives = 0
    token_scores: bool = Field(default=False, description="with log P of each token, which takes more time")
    alignment: bool = Field(default=False, description="with the word alignment of each translation")


class ScoredTranslation(BaseModel):
    """A translation of a line; scores are null where they are not finite."""

    text: str
    score: float | None = Field(description="log P over the length penalty, in nats")
    log_prob: float | None = Field(description="log P, in nats")
    tokens: list[str] = Field(description="pieces, with </s>; none of a line that is copied")
    token_log_probs: list[float | None] | None = None
    alignment: list[tuple[int, int]] | None = Field(
        default=None,
        description="[word of the line, word of the translation], from 0; words are what white space separates",
    )


class TranslatedLine(BaseModel):
    """A line with its translations, best first; none of a blank line."""

    source: str
    translations: list[ScoredTranslation]


class TranslatedText(BaseModel):
    """A text by its lines."""

    lines: list[TranslatedLine]


class TranslationsAnswer(BaseModel):
    """All texts of a request, also of a request with one."""

    model: str
    source: str
    target: str
    texts: list[TranslatedText]


class AttentionRequest(_OwnRequest):
    """A request for the attention weights of a sentence and a translation."""

    q: str = Field(description="a sentence")
    translation: str | None = Field(default=None, description="by default the model's own")


class AttentionUse(BaseModel):
    """One of the three uses of attention (section 3.2.3)."""

    name: str
    queries: list[str] = Field(description="the piece of each row; the decoder's are its inputs, <s> first")
    keys: list[str] = Field(description="the piece of each column")
    weights: list[list[list[list[int]]]] = Field(description="[layer][head][query][key], times unit")


class AttentionAnswer(BaseModel):
    """Attention weights of every layer and head."""

    unit: int = Field(description="the weight 1")
    uses: list[AttentionUse] = Field(description="encoder, decoder, encoder-decoder")
