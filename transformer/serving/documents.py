"""Documents of requests: read in a thread of their own, their sentences translated together with all that wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from transformer.data.normalization import text_error
from transformer.documents.formats import Translate as TranslateSentences
from transformer.documents.formats import Translated, translate_document
from transformer.errors import DataError
from transformer.serving.batching import Batcher
from transformer.serving.models import ServedModel, Translate, TranslateAndAlign

_Answer = TypeVar("_Answer")
# Before a page that is text already: whatever encoding the page declares, its bytes are UTF-8.
_MARK = b"\xef\xbb\xbf"


def translate_pages(model: ServedModel, pages: Sequence[str], translate: TranslateSentences) -> list[str]:
    """The pages, or parts of them, with their HTML around the translations; errors as of `translate_document`."""
    languages = model.translator.languages
    try:
        found = [translate_document(_MARK + page.encode(), "html", translate, languages=languages) for page in pages]
    except UnicodeEncodeError:
        raise text_error(pages) from None
    except DataError as error:
        raise DataError(f"document: {error}") from None
    return [page.removeprefix(_MARK).decode() for page in found]


def in_batches(
    model: ServedModel, batcher: Batcher, client: str, work: Callable[[TranslateSentences], _Answer]
) -> Future[_Answer]:
    """Let work be done in a thread, whose sentences wait for batches.

    The request counts as accepted when its first sentences are. When the future is cancelled, so are the sentences that
    wait.
    """
    result: Future[_Answer] = Future()
    waiting: list[Future[list[Any]]] = []

    def translate(sentences: list[str]) -> Sequence[Translated]:
        # Sentences of the same document are of the same request, also when it is asked for again.
        waiting.append(batcher.submit(_work(model), sentences, client, is_accepted=bool(waiting)))
        if result.cancelled():  # before the callback below could see it
            waiting[-1].cancel()
        return [_best(found) for found in waiting[-1].result()]

    def cancel(_: Future[_Answer]) -> None:
        for one in waiting:
            one.cancel()

    def run() -> None:
        with contextlib.suppress(InvalidStateError):  # the client has gone
            try:
                answer = work(translate)
            except Exception as error:
                result.set_exception(error)
            else:
                result.set_result(answer)

    result.add_done_callback(cancel)
    threading.Thread(target=run, name="document", daemon=True).start()
    return result


def _work(model: ServedModel) -> Translate | TranslateAndAlign:
    translate = Translate(model)
    return TranslateAndAlign(translate) if model.has_attention else translate


def _best(found: Any) -> Translated:
    """The best of the results of either work."""
    if isinstance(found, tuple):
        (best,), (links,) = found
        return Translated(best.text, links)
    (best,) = found
    return Translated(best.text)
