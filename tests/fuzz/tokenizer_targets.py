"""Tokenizers from elsewhere, as a target of the fuzzer."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import Any

import mutators
import sentencepiece
from harness import InvariantError

from transformer.data.builtin import builtin_pairs
from transformer.data.given_tokenizer import load_given
from transformer.data.subword_sampling import SubwordSampler
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, load_processor

_TEXT = "A man is sleeping. Ä ½ ﬁ 漢字 😀 <s> </s> <pad> <2de>x"


@functools.cache
def _models() -> list[bytes]:
    """Models with SentencePiece's own special ids."""
    models = []
    for model_type in ("bpe", "unigram", "word", "char"):
        model = io.BytesIO()
        options: Any = {"vocab_size": 200, "hard_vocab_limit": False, "minloglevel": 2}
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=(side for pair in builtin_pairs("train", 400) for side in pair),
            model_writer=model,
            model_type=model_type,
            user_defined_symbols=["<2de>"],
            **options,
        )
        models.append(model.getvalue())
    return models


def take_tokenizer(rng: random.Random, directory: Path) -> None:
    """A tokenizer from elsewhere splits text as before, its samples spell it too, or that is an error."""
    path = directory / "given.spm"
    path.write_bytes(mutators.sentencepiece_model(rng, rng.choice(_models())))
    tokenizer, original = load_given(path), load_processor(path.read_bytes())
    texts = [_TEXT, *(mutators.text(rng) for _ in range(3))]
    encoded = tokenizer.encode(texts)
    for text, ids in zip(texts, encoded, strict=True):
        if ids and tokenizer.pieces(ids) != [original.IdToPiece(id_) for id_ in original.Encode(text)]:
            raise InvariantError(f"{text[:50]!r} has other pieces than in the original")
        if {PAD_ID, BOS_ID, EOS_ID} & {*ids}:
            raise InvariantError(f"{text[:50]!r} has special ids")
    if tokenizer.type in ("bpe", "unigram"):
        _check_samples(tokenizer, encoded, rng)


def _check_samples(tokenizer: Tokenizer, encoded: list[list[int]], rng: random.Random) -> None:
    is_unigram = tokenizer.type == "unigram"
    sampler = SubwordSampler(tokenizer, alpha=0.3) if is_unigram else SubwordSampler(tokenizer, dropout=0.3)
    for ids in encoded:
        sampled = sampler.sample(ids, rng)
        if tokenizer.decode([sampled]) != tokenizer.decode([ids]):
            raise InvariantError(f"the sample {sampled} spells another text than {ids}")
