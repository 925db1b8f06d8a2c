"""Tokenizers with a vocabulary of their own: pieces looked up by text, one file for two SentencePiece models."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save

from transformer.data.builtin import builtin_pairs
from transformer.data.sentencepiece_model import CONTROL
from transformer.data.subword_sampling import SubwordSampler
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.data.vocabulary_tokenizer import VocabularyTokenizer, is_container, load_tokenizer, read_tokenizer
from transformer.errors import DataError

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]


def trained(lines: list[str], size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type="unigram", minloglevel=2
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.IdToPiece(id_) for id_ in range(3, processor.GetPieceSize())]


@pytest.fixture(scope="module")
def models() -> tuple[bytes, bytes]:
    sources, targets = zip(*builtin_pairs("train", 199), strict=True)
    return trained(list(sources), 97), trained(list(targets), 89)


def missing_piece(models: tuple[bytes, bytes]) -> str:
    """A piece of the source alone."""
    return next(piece for piece in pieces_of(models[0]) if piece not in pieces_of(models[1]))


@pytest.fixture(scope="module")
def joint(models: tuple[bytes, bytes]) -> VocabularyTokenizer:
    """Of both sides, with one piece of the source missing, a character of neither model, and a code."""
    source, target = models
    rest = dict.fromkeys([">>deu<<", "東", *pieces_of(source), *pieces_of(target)])
    del rest[missing_piece(models)]
    return VocabularyTokenizer(VocabularyTokenizer.pack(target, [*SPECIALS, *rest], source))


def test_pieces_are_looked_up_by_text(joint: VocabularyTokenizer, models: tuple[bytes, bytes]) -> None:
    source = sentencepiece.SentencePieceProcessor(model_proto=models[0])
    texts = [line for line, _ in builtin_pairs("test", 31)]
    for text, ids in zip(texts, joint.source.encode(texts), strict=True):
        split = source.Encode(text, out_type=str)
        assert joint.source.encode_as_pieces([text]) == [split]
        assert UNK_ID in ids or joint.source.pieces(ids) == split
    missing = missing_piece(models)
    with_missing = next(line for line, _ in builtin_pairs("train", 199) if missing in source.Encode(line, out_type=str))
    ids = joint.source.encode([with_missing])[0]
    assert [id_ == UNK_ID for id_ in ids] == [piece == missing for piece in source.Encode(with_missing, out_type=str)]


def test_a_character_that_sentencepiece_does_not_know_may_have_an_id(joint: VocabularyTokenizer) -> None:
    (ids,) = joint.encode(["東"])
    assert joint.pieces(ids)[-1] == "東"
    assert UNK_ID in joint.encode(["京"])[0]


def test_a_code_at_the_beginning_is_a_piece_and_elsewhere_is_text(joint: VocabularyTokenizer) -> None:
    alone, coded, spaced, inside = joint.source.encode(["A man", ">>deu<<A man", ">>deu<< A man", "A >>deu<< man"])
    (code,) = joint.source.encode([">>deu<<"])[0]
    assert joint.pieces([code]) == [">>deu<<"]
    assert coded == spaced == [code, *alone]
    assert code not in inside
    assert joint.source.encode([">>xyz<< A man"]) == [[UNK_ID, *alone]]
    assert joint.source.encode([">>", ">><<", "<<>>"])[1] == [UNK_ID]


def test_text_comes_back_from_ids_and_from_pieces(joint: VocabularyTokenizer) -> None:
    for tokenizer, texts in (
        (joint.source, [s for s, _ in builtin_pairs("test", 19)]),
        (joint, [t for _, t in builtin_pairs("test", 19)]),
    ):
        ids = tokenizer.encode(texts)
        known = [text for text, x in zip(texts, ids, strict=True) if UNK_ID not in x]
        assert tokenizer.decode([x for x in ids if UNK_ID not in x]) == known
        assert tokenizer.decode_pieces(tokenizer.encode_as_pieces(known)) == known
    assert joint.decode([[0, 2, UNK_ID, 3]]) == ["⁇"], "special ids are dropped, unknown is shown"
    of_source = next(
        piece
        for piece in joint.source.encode_as_pieces(["A man is sleeping ."])[0]
        if piece.startswith("▁") and len(piece) > 1
    )
    assert joint.decode_pieces([[of_source, of_source]]) == [f"{of_source} {of_source}".replace("▁", "")]


def test_a_joint_vocabulary_counts_once_and_has_a_source_all_the_same(joint: VocabularyTokenizer) -> None:
    assert not joint.is_separate
    assert joint.sizes == (len(joint), None)
    assert len(joint.source) == len(joint)
    assert joint.source is not joint
    assert " " not in joint.digest


def test_the_sentencepiece_models_inside_are_given_back(
    joint: VocabularyTokenizer, models: tuple[bytes, bytes]
) -> None:
    assert (joint.source.sentencepiece, joint.sentencepiece) == models
    assert Tokenizer(plain := Tokenizer.train(["a man"], 10).model).sentencepiece == plain


def test_words_are_encoded_as_within_their_text(joint: VocabularyTokenizer) -> None:
    text = "A man is sleeping ."
    words = joint.source.encode_words(text)
    assert [id_ for word in words for id_ in word] == joint.source.encode([text])[0]


def test_a_file_of_each_kind_is_read(joint: VocabularyTokenizer, models: tuple[bytes, bytes], tmp_path: Path) -> None:
    plain = Tokenizer.train((side for pair in builtin_pairs("train", 53) for side in pair), 101)
    (tmp_path / "tokenizer.model").write_bytes(joint.model)
    loaded = load_tokenizer(tmp_path, is_separate=False)
    assert loaded.encode(["Ein Mann"]) == joint.encode(["Ein Mann"])
    assert loaded.source.encode(["A man"]) == joint.source.encode(["A man"])
    assert loaded.digest == joint.digest
    own = VocabularyTokenizer.pack(models[0], [*SPECIALS, *pieces_of(models[0])])
    (tmp_path / "source_tokenizer.model").write_bytes(own)
    (tmp_path / "tokenizer.model").write_bytes(plain.model)
    separate = load_tokenizer(tmp_path, is_separate=True)
    assert (separate.is_separate, separate.sizes) == (True, (101, 98))
    assert type(separate) is Tokenizer
    assert not is_container(plain.model)


def test_segmentations_of_its_pieces_are_sampled(joint: VocabularyTokenizer) -> None:
    import random

    tokenizer = joint.source
    sampler, rng = SubwordSampler(tokenizer, alpha=0.1), random.Random(3)
    text = "A man is sleeping ."
    (ids,) = tokenizer.encode([f">>deu<< {text}"])
    drawn = [sampler.sample(ids, rng) for _ in range(31)]
    assert {x[0] for x in drawn} == {ids[0]}, "the code stays"
    assert len({*map(tuple, drawn)}) > 5
    assert set(tokenizer.decode([x[1:] for x in drawn])) == {text}
    kinds = {piece.text: piece.kind for piece in joint.scored_pieces()}
    assert kinds["東"] == CONTROL


def parts(**changed: bytes | None) -> bytes:
    whole = {"sentencepiece": b"x", "pieces": json.dumps(SPECIALS).encode(), **changed}
    return save({name: np.frombuffer(part, np.uint8) for name, part in whole.items() if part is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parts(pieces=None), "not a tokenizer, but a safetensors file with sentencepiece"),
        (parts(other=b"x"), "not a tokenizer, but a safetensors file with other, pieces, sentencepiece"),
        (save({}), "not a tokenizer, but a safetensors file with nothing"),
        (save({"sentencepiece": np.zeros(3), "pieces": np.zeros(3)}), "a safetensors file of numbers"),
        (parts(), "not a SentencePiece model"),
        ((9).to_bytes(8, "little") + b"{ no json", "not a tokenizer: "),
    ],
)
def test_other_content_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tokenizer(content)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (b"{", "its pieces are not JSON"),
        (b"[" * 100_000, "its pieces are not JSON"),
        (b"[1]", "its pieces are not a list of texts"),
        (b"{}", "its pieces are not a list of texts"),
        (b'["<pad>", "<unk>", "</s>", "<s>", "a"]', "must begin with <pad>, <unk>, <s>, </s>"),
        (json.dumps([*SPECIALS, "a", "b", "a"]).encode(), "a piece has two ids"),
    ],
)
def test_a_damaged_vocabulary_is_refused(models: tuple[bytes, bytes], pieces: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tokenizer(parts(sentencepiece=models[0], pieces=pieces))


def test_what_is_no_text_is_refused(joint: VocabularyTokenizer) -> None:
    with pytest.raises(TypeError, match="texts must be a list of texts, not one string"):
        joint.encode("A man")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="text 2 contains surrogates"):
        joint.encode(["A man", "\ud800"])
    with pytest.raises(TypeError, match="text 1 must be a str"):
        joint.encode([3])  # type: ignore[list-item]
    assert joint.encode([]) == []
    assert joint.encode(["", " \t", ">>deu<<"]) == [[], [], joint.encode([">>deu<<"])[0]]


def test_a_tokenizer_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.model: cannot be read: No such file"):
        load_tokenizer(tmp_path, is_separate=False)
    (tmp_path / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"tokenizer\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path, is_separate=False)
