"""Attributes of web pages that are text for people, and those that name its language.

By the HTML standard (https://html.spec.whatwg.org/multipage/dom.html#the-translate-attribute) and WAI-ARIA. What a form
sends, such as the value of a submit button, is none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from transformer.data.languages import short_code
from transformer.documents.html_tokens import HtmlToken, Range

_OF_ANY = {
    "title",
    *(f"aria-{name}" for name in ("description", "label", "placeholder", "roledescription", "valuetext")),
}
_OF = {
    "abbr": ("th",),
    "alt": ("area", "img", "input"),
    "label": ("optgroup", "option", "track"),
    "placeholder": ("input", "textarea"),
}
_BUTTONS = ("button", "reset")
_METADATA = ("description", "og:description", "og:title", "twitter:description", "twitter:title")
LANGUAGES = ("lang", "xml:lang")


def attributes_to_read(page: str, token: HtmlToken) -> Iterator[Range]:
    """Characters of the values that people read, of a start tag."""
    for name, (start, end) in token.attributes.items():
        is_whole = not page.startswith(('"', "'"), start) or (end - start > 1 and page[end - 1] == page[start])
        is_read = name in _OF_ANY or token.name in _OF.get(name, ()) or _is_shown(page, token, name)
        if start < end and is_whole and is_read:
            yield start, end


def _is_shown(page: str, token: HtmlToken, name: str) -> bool:
    """Whether another attribute says that people read this one."""
    if (token.name, name) == ("input", "value"):
        return token.value(page, "type").lower() in _BUTTONS
    kinds = (token.value(page, "name").lower(), token.value(page, "property").lower())
    return (token.name, name) == ("meta", "content") and any(kind in _METADATA for kind in kinds)


def is_in_language(tag: str, language: str) -> bool:
    """Whether a language tag, such as en-GB, is of a language, such as en or eng."""
    base, wanted = (short_code(code).lower().split("-")[0] for code in (tag, language))
    return bool(language) and base == wanted


def quoted(text: str, before: str) -> str:
    """A value with escaped text, in the quotes of the one before, or in double ones."""
    quote = before[0] if before.startswith(('"', "'")) else '"'
    return quote + text.replace(quote, "&quot;" if quote == '"' else "&#39;") + quote
