"""Subword regularisation: the same text, in other pieces, as a pure function of seed, epoch and pair."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import sentencepiece

from transformer.config import DataConfig
from transformer.data import subword_sampling
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus
from transformer.data.dataset import PairDataset, encode_corpus
from transformer.data.protobuf import read_fields
from transformer.data.sentencepiece_model import PIECES, UNUSED, Piece, read_pieces
from transformer.data.subword_sampling import SubwordSampler, pair_sampler
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import DataError

SENTENCES = [side for pair in builtin_pairs("train", 397) for side in pair]
ODD = ["漢字 ▅ <2de>Hund <2de> x<2de>y", "Ж unknown Жx ½", "  a  ", "a" * 70, "naïve <s>", "A"]


def train(tokenizer_type: Any, **options: Any) -> Tokenizer:
    return Tokenizer.train(SENTENCES, 409, tokenizer_type=tokenizer_type, **options)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train("bpe", user_symbols=["<2de>"])


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    return train("unigram", user_symbols=["<2de>"])


def check_same_texts(tokenizer: Tokenizer, sampler: SubwordSampler, texts: Sequence[str]) -> int:
    """How many of the texts have other pieces, which all spell the same."""
    rng, num_other = random.Random(1), 0
    encoded = tokenizer.encode(texts)
    for ids in encoded * 3:
        found = sampler.sample(ids, rng)
        assert tokenizer.decode([found]) == tokenizer.decode([ids])
        num_other += found != ids
    return num_other


def test_without_dropout_the_pieces_are_those_of_sentencepiece(bpe: Tokenizer) -> None:
    sampler, rng = SubwordSampler(bpe, dropout=0.0), random.Random(1)
    encoded = bpe.encode(SENTENCES + ODD)
    assert [sampler.sample(ids, rng) for ids in encoded] == encoded


def test_with_a_large_alpha_the_pieces_are_those_of_sentencepiece(unigram: Tokenizer) -> None:
    sampler, rng = SubwordSampler(unigram, alpha=100.0), random.Random(1)
    encoded = unigram.encode(SENTENCES + ODD)
    assert [sampler.sample(ids, rng) for ids in encoded] == encoded


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"character_coverage": 0.98}], ids=str)
def test_other_pieces_spell_the_same_text(options: dict[str, Any]) -> None:
    bpe, unigram = train("bpe", **options), train("unigram", **options)
    assert check_same_texts(bpe, SubwordSampler(bpe, dropout=0.3), SENTENCES + ODD) > 300
    assert check_same_texts(unigram, SubwordSampler(unigram, alpha=0.2), SENTENCES + ODD) > 300


def test_symbols_and_unknown_pieces_stay_as_they_are(bpe: Tokenizer, unigram: Tokenizer) -> None:
    for tokenizer, sampler in (
        (bpe, SubwordSampler(bpe, dropout=0.999)),
        (unigram, SubwordSampler(unigram, alpha=0.01)),
    ):
        (ids,) = tokenizer.encode([ODD[0]])
        (symbol,) = (i for i, piece in enumerate(tokenizer.pieces(range(len(tokenizer)))) if piece == "<2de>")
        found = sampler.sample(ids, random.Random(1))
        assert found.count(symbol) == 3
        assert found.count(1) == ids.count(1) > 0


def test_tags_and_symbols_that_are_pieces_as_others_are_never_split(tmp_path: Path) -> None:
    """In a tokenizer from elsewhere."""
    text, model = [f"<bt> {one} <q>" for one in SENTENCES], io.BytesIO()
    options: dict[str, Any] = {"model_type": "bpe", "vocab_size": 409, "split_by_unicode_script": False}
    options |= {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=model, **options)
    tokenizer = Tokenizer(model.getvalue())
    ids = [tokenizer.encode([word])[0] for word in ("<bt>", "<q>")]
    assert [len(one) for one in ids] == [1, 1]
    corpus = Corpus("pairs", "pairs", lambda: iter((one, one) for one in text))
    dataset = encode_corpus(corpus, tokenizer, tmp_path)
    data = DataConfig(subword_dropout=0.9, tag="<bt>", user_symbols=("<q>",))
    for tagged, is_whole in ((data, True), (DataConfig(subword_dropout=0.9), False)):
        sampler = pair_sampler(tagged, tokenizer)
        assert sampler is not None
        found = sampler.sample(dataset, np.arange(50), 1, 0)
        assert (np.sum(found.src.ids == ids[0][0]) == 50) == is_whole
        assert (np.sum(found.tgt.ids == ids[1][0]) == 50) == is_whole


def test_with_nearly_all_merges_left_out_a_text_is_spelt_in_characters(bpe: Tokenizer) -> None:
    sampler = SubwordSampler(bpe, dropout=1 - 1e-9)
    (ids,) = bpe.encode(["Der Hund"])
    assert bpe.pieces(sampler.sample(ids, random.Random(1))) == list("▁Der▁Hund")


def test_no_ids_have_no_pieces(bpe: Tokenizer) -> None:
    assert SubwordSampler(bpe, dropout=0.5).sample([], random.Random(1)) == []


def test_a_word_of_three_characters_has_the_probabilities_of_algorithm_1() -> None:
    """Merges ab < ▁ab in ▁ab: with p each is left out, anew at each step."""
    tokenizer = Tokenizer.train(["ab ab ab"], 9)
    assert tokenizer.pieces(range(4, 9)) == ["ab", "▁ab", "a", "b", "▁"]
    sampler, rng, p, number = SubwordSampler(tokenizer, dropout=0.25), random.Random(5), 0.25, 20_000
    (ids,) = tokenizer.encode(["ab"])
    found = collections.Counter(tuple(sampler.sample(ids, rng)) for _ in range(number))
    # One merge is possible at first, and then one more.
    expected = {1: (1 - p) ** 2, 2: (1 - p) * p, 3: p}
    for num_pieces, probability in expected.items():
        count = sum(n for pieces, n in found.items() if len(pieces) == num_pieces)
        assert abs(count / number - probability) < 4 * math.sqrt(probability / number)


def test_of_two_possible_merges_the_second_is_taken_if_only_the_first_is_left_out() -> None:
    tokenizer = Tokenizer.train(["abab abab ab cd cd"], 14)
    (ids,) = tokenizer.encode(["abcd"])
    sampler, rng, p, number = SubwordSampler(tokenizer, dropout=0.5), random.Random(5), 0.5, 20_000
    state = sampler._state(tuple("▁abcd"), tuple(ids))
    states = sampler._states
    _, merges, own, first = states.known[state]
    num_merges = len(merges)
    assert num_merges >= 2
    sampler.sample(ids, rng)
    for _ in range(number):
        sampler._merge(state, tuple(ids), rng)
    assert -1 not in states.after[first : first + num_merges]
    stops = sum(sampler._merge(state, tuple(ids), rng) == own for _ in range(number)) / number
    assert abs(stops - p**num_merges) < 4 * math.sqrt(p**num_merges / number)


def test_a_unigram_segmentation_has_the_probability_of_its_pieces() -> None:
    """All segmentations of a word, by hand, with P^alpha."""
    tokenizer, alpha, number = train("unigram"), 0.4, 30_000
    (ids,) = tokenizer.encode(["eine"])
    text, scores = "▁eine", {piece.text: piece.score for piece in read_pieces(tokenizer.model)}
    weights = {}
    for cuts in itertools.product((0, 1), repeat=len(text) - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(text)]
        pieces = tuple(text[a:b] for a, b in itertools.pairwise(places))
        if all(piece in scores for piece in pieces):
            weights[pieces] = math.exp(alpha * sum(scores[piece] for piece in pieces))
    total = sum(weights.values())
    assert len(weights) > 3
    sampler, rng = SubwordSampler(tokenizer, alpha=alpha), random.Random(3)
    found = collections.Counter(tuple(tokenizer.pieces(sampler.sample(ids, rng))) for _ in range(number))
    assert found.keys() <= weights.keys()
    for pieces, weight in weights.items():
        probability = weight / total
        assert abs(found[pieces] / number - probability) < 5 * math.sqrt(probability / number) + 1e-4


def test_forgetting_words_changes_nothing(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = bpe.encode(SENTENCES[:97])
    expected = [SubwordSampler(bpe, dropout=0.3).sample(ids, random.Random(i)) for i, ids in enumerate(encoded)]
    monkeypatch.setattr(subword_sampling, "_MAX_WORDS", 5)
    sampler = SubwordSampler(bpe, dropout=0.3)
    assert [sampler.sample(ids, random.Random(i)) for i, ids in enumerate(encoded)] == expected
    assert len(sampler._draws) <= 5 + max(map(len, encoded))


def test_no_more_is_kept_when_all_words_have_occurred(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word has as many partly merged forms as it has subsets of cuts, which occur epoch after epoch."""
    monkeypatch.setattr(subword_sampling, "_MAX_STATES", 101)
    text, rng, kept = SENTENCES[0], random.Random(1), []
    (ids,) = bpe.encode([text])
    sampler = SubwordSampler(bpe, dropout=0.5)
    for _ in range(301):
        sampler.sample(ids, rng)
        kept.append(len(sampler._states.known))
    assert 101 < max(kept) <= 101 + len(text), "a sentence is split with all that it needs"
    assert kept != sorted(kept)


def test_long_words_are_split_as_short_ones_are(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for them, and the same random numbers give the same pieces."""
    encoded = bpe.encode([*SENTENCES[:97], "".join(SENTENCES[0].split()) * 3])
    for dropout in (0.0, 0.3, 0.8):
        monkeypatch.setattr(subword_sampling, "_MAX_KEPT_LENGTH", 1000)
        kept = [SubwordSampler(bpe, dropout=dropout).sample(ids, random.Random(i)) for i, ids in enumerate(encoded)]
        monkeypatch.setattr(subword_sampling, "_MAX_KEPT_LENGTH", 0)
        long = [SubwordSampler(bpe, dropout=dropout).sample(ids, random.Random(i)) for i, ids in enumerate(encoded)]
        assert long == kept


def test_a_character_that_is_only_a_part_of_pieces_never_becomes_unknown(bpe: Tokenizer) -> None:
    model = b"".join(field for number, field, _ in read_fields(bpe.model) if number != PIECES)
    pieces = [piece for piece in read_pieces(bpe.model) if piece.text != "e"]
    tokenizer = Tokenizer(b"".join(piece.to_field() for piece in pieces) + model)
    texts = [text for text in SENTENCES if 1 not in tokenizer.encode([text])[0]]
    assert len(texts) > 30
    assert any("e" in text for text in texts)
    sampler, rng = SubwordSampler(tokenizer, dropout=0.5), random.Random(1)
    for ids in tokenizer.encode(texts):
        found = sampler.sample(ids, rng)
        assert 1 not in found
        assert tokenizer.decode([found]) == tokenizer.decode([ids])


def test_pieces_that_cross_words_are_sampled_too() -> None:
    tokenizer = Tokenizer.train(["a b a b a b c"], 11)
    model = b"".join(field for number, field, _ in read_fields(tokenizer.model) if number != PIECES)
    pieces = [*read_pieces(tokenizer.model), Piece("▁a▁b", score=-1.5)]
    crossing = Tokenizer(b"".join(piece.to_field() for piece in pieces) + model)
    encoded = crossing.encode(["a b a b c a"])
    assert len(crossing) - 1 in encoded[0]
    assert SubwordSampler(crossing, dropout=0.0).sample(encoded[0], random.Random(1)) == encoded[0]
    assert check_same_texts(crossing, SubwordSampler(crossing, dropout=0.4), ["a b a b c a"]) > 0


@pytest.mark.parametrize("change", [{"kind": UNUSED}, {"score": math.nan}], ids=str)
def test_unused_pieces_and_scores_that_are_no_numbers_are_refused(bpe: Tokenizer, change: dict[str, Any]) -> None:
    model = b"".join(field for number, field, _ in read_fields(bpe.model) if number != PIECES)
    *pieces, last = read_pieces(bpe.model)
    pieces.append(last._replace(**change))
    tokenizer = Tokenizer(b"".join(piece.to_field() for piece in pieces) + model)
    message = r"^data\.subword_dropout: the tokenizer has unused pieces or scores that are no numbers$"
    with pytest.raises(DataError, match=message):
        SubwordSampler(tokenizer, dropout=0.1)


@pytest.mark.parametrize("dropout", [-0.1, 1.1, math.nan])
def test_a_dropout_that_is_no_probability_is_refused(bpe: Tokenizer, dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"^dropout={dropout} is not in \[0, 1\]$"):
        SubwordSampler(bpe, dropout=dropout)


def test_each_method_belongs_to_a_type_of_tokenizer(bpe: Tokenizer, unigram: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"^data\.subword_dropout is for bpe models; the tokenizer is of type unigram$"):
        SubwordSampler(unigram, dropout=0.1)
    with pytest.raises(DataError, match=r"^data\.subword_alpha is for unigram models; the tokenizer is of type bpe$"):
        SubwordSampler(bpe, alpha=0.1)


# Pairs


@pytest.fixture(scope="module")
def dataset(bpe: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    pairs = list(builtin_pairs("train", 53))
    return encode_corpus(Corpus("pairs", "pairs", lambda: iter(pairs)), bpe, tmp_path_factory.mktemp("cache"))


def sentences(dataset: PairDataset) -> list[list[list[int]]]:
    return [
        [side.ids[start : start + length].tolist() for start, length in zip(side.starts, side.lengths, strict=True)]
        for side in (dataset.src, dataset.tgt)
    ]


def sampled(
    data: DataConfig, tokenizer: Tokenizer, dataset: PairDataset, *place: int, pairs: Sequence[int] = range(53)
) -> list[list[list[int]]]:
    sampler = pair_sampler(data, tokenizer)
    assert sampler is not None
    return sentences(sampler.sample(dataset, np.array(pairs, dtype=np.int64), *place))


def test_a_pair_is_split_alike_whatever_was_split_before(bpe: Tokenizer, dataset: PairDataset) -> None:
    data = DataConfig(subword_dropout=0.2)
    whole = sampled(data, bpe, dataset, 7, 3)
    order = [31, 5, 17, 5]
    some = sampled(data, bpe, dataset, 7, 3, pairs=order)
    assert some == [[side[i] for i in order] for side in whole]


def test_seed_epoch_and_side_have_numbers_of_their_own(bpe: Tokenizer, dataset: PairDataset) -> None:
    data = DataConfig(subword_dropout=0.2)
    found = [sampled(data, bpe, dataset, *place) for place in ((7, 3), (7, 4), (8, 3), (3, 7))]
    assert all(a != b for a, b in itertools.combinations(found, 2))
    mirrored = dataclasses.replace(dataset, src=dataset.tgt)
    src, tgt = sampled(data, bpe, mirrored, 7, 3)
    assert src != tgt


@pytest.mark.parametrize(
    ("side", "is_sampled"), [("both", (True, True)), ("source", (True, False)), ("target", (False, True))]
)
def test_only_the_chosen_sides_are_split_anew(
    bpe: Tokenizer, dataset: PairDataset, side: str, is_sampled: tuple[bool, bool]
) -> None:
    data = DataConfig(subword_dropout=0.2, subword_sides=side)  # type: ignore[arg-type]
    found = sampled(data, bpe, dataset, 7, 3)
    assert tuple(a != b for a, b in zip(found, sentences(dataset), strict=True)) == is_sampled


def test_each_sentence_ends_as_before_and_decodes_to_the_same_text(bpe: Tokenizer, dataset: PairDataset) -> None:
    for before, after in zip(
        sentences(dataset), sampled(DataConfig(subword_dropout=0.3), bpe, dataset, 7, 3), strict=True
    ):
        assert all(ids[-1] == EOS_ID and ids.count(EOS_ID) == 1 for ids in after)
        assert bpe.decode(after) == bpe.decode(before)


def test_a_segmentation_beyond_the_limit_is_not_taken(bpe: Tokenizer, dataset: PairDataset) -> None:
    longest = int(max(dataset.src.lengths.max(), dataset.tgt.lengths.max()))
    found = sampled(DataConfig(subword_dropout=0.3, max_length=longest), bpe, dataset, 7, 3)
    assert max(len(ids) for side in found for ids in side) <= longest
    spelt = sampled(DataConfig(subword_dropout=1 - 1e-9, max_length=longest), bpe, dataset, 7, 3)
    kept = [a == b for sides in zip(spelt, sentences(dataset), strict=True) for a, b in zip(*sides, strict=True)]
    assert any(kept)


def test_there_is_no_sampler_by_default(bpe: Tokenizer) -> None:
    assert pair_sampler(DataConfig(), bpe) is None


def test_each_side_is_split_by_its_own_tokenizer(tmp_path: Path) -> None:
    tokenizer = train("bpe")
    tokenizer.source = Tokenizer.train(SENTENCES[::2], 211)
    pairs = list(builtin_pairs("train", 53))
    dataset = encode_corpus(Corpus("pairs", "two", lambda: iter(pairs)), tokenizer, tmp_path)
    src, tgt = sampled(DataConfig(subword_dropout=0.3), tokenizer, dataset, 7, 3)
    assert tokenizer.source.decode(src) == [source for source, _ in pairs]
    assert tokenizer.decode(tgt) == [target for _, target in pairs]


def test_an_exception_at_any_line_leaves_a_sampler_that_samples_as_a_new_one() -> None:
    tokenizer = Tokenizer.train(["abab abab ab cd cd"], 14)
    (ids,) = tokenizer.encode(["abcd abab cd"])

    def interrupted_at(line: int) -> tuple[SubwordSampler, bool]:
        sampler, lines = SubwordSampler(tokenizer, dropout=0.5), itertools.count()

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_filename != subword_sampling.__file__:
                return None
            if event == "line" and next(lines) == line:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            sampler.sample(ids, random.Random(3))
        except KeyboardInterrupt:
            return sampler, True
        finally:
            sys.settrace(before)
        return sampler, False

    expected = [SubwordSampler(tokenizer, dropout=0.5).sample(ids, random.Random(seed)) for seed in range(20)]
    for line in itertools.count():
        sampler, was_interrupted = interrupted_at(line)
        assert [sampler.sample(ids, random.Random(seed)) for seed in range(20)] == expected
        if not was_interrupted:
            break
    assert line > 30
