"""BLEU and chrF that follow training: greedy translations, the tokenizer of the target language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config
from transformer.data.tokenizer import Tokenizer
from transformer.inference.bleu import score
from transformer.inference.bleu_tokenizer import resolve_tokenizer
from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext
from transformer.training.metrics import bleu_tokenizers, read_metrics


def greedy_bleu(
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    references: Sequence[str],
    context: DistributedContext = SINGLE_PROCESS,
    tokenize: str = "13a",
    tag: str | None = None,
    tags: Sequence[str] = (),
) -> float:
    """sacreBLEU of greedy translations, to follow training; leaves the model in `eval` mode.

    Length limits are the defaults of `SearchConfig`. A source that is too long is not translated, and costs BLEU.
    `tokenize` is sacreBLEU's tokenizer; `tag` stands before each source that does not begin with it or another of
    the `tags`; sources that `Trainer` hands over have theirs. All processes get the score of the main one.
    """
    return greedy_scores(model, tokenizer, sources, references, context, tokenize, tag, tags)["bleu"]


def greedy_scores(
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    references: Sequence[str],
    context: DistributedContext = SINGLE_PROCESS,
    tokenize: str = "13a",
    tag: str | None = None,
    tags: Sequence[str] = (),
) -> dict[str, float]:
    """Likewise, sacreBLEU's BLEU and chrF, as "bleu" and "chrf"."""
    translator = Translator(model, tokenizer)
    translator.context = context
    translator.tag, translator.tags = tag, tags or ([] if tag is None else [tag])
    reader = translator.source_reader()  # its limit includes </s>
    fitting = [x if len(ids) < reader.limit else "" for x, ids in zip(sources, reader.encode(sources), strict=True)]
    translations = translator.translate(fitting, beam=1)
    # On another machine the tokenizer's library might be another, and the score of each process decides what is best.
    found = context.broadcast_from_main(lambda: score(translations, references, tokenize))
    return {"bleu": found.bleu, "chrf": found.chrf}


@dataclass(frozen=True)
class ValidationBleu:
    """Scores the greedy translations of a model, for `Trainer`.

    Attributes:
        tokenize: sacreBLEU's tokenizer of BLEU, which works.
        context: the processes that translate together.
        tag, tags: the piece before each source, if there is one, and all of the model.
    """

    tokenize: str
    context: DistributedContext = SINGLE_PROCESS
    tag: str | None = None
    tags: Sequence[str] = ()

    @classmethod
    def from_config(
        cls, config: Config, warn: Callable[[str], None], context: DistributedContext = SINGLE_PROCESS
    ) -> ValidationBleu:
        """Take the tokenizer of `data.bleu_tokenizer`; DataError if it cannot be used.

        `warn` gets a line, on the main process, if `auto` could not have its first choice, and if the run's earlier
        validations were scored with another tokenizer.
        """
        data = config.data
        tokenize = context.broadcast_from_main(lambda: resolve_tokenizer(data.bleu_tokenizer, data.tgt_lang, warn))
        run = Path(config.run_dir)
        earlier = bleu_tokenizers(read_metrics(run)) if context.is_main and run.is_dir() else []
        if earlier and earlier[-1] != tokenize:
            warn(f"validation BLEU is computed with {tokenize} from now on; up to now it was {earlier[-1]}")
        return cls(tokenize, context, data.tag, data.tags)

    def __call__(
        self, model: Transformer, tokenizer: Tokenizer, sources: Sequence[str], references: Sequence[str]
    ) -> dict[str, float]:
        return greedy_scores(model, tokenizer, sources, references, self.context, self.tokenize, self.tag, self.tags)
