"""Captions of the built-in grammar as word ids."""

from __future__ import annotations

from captions import NUM_SPECIAL, UNKNOWN_ID, Vocabulary, english, padded, words

from transformer import BOS_ID, EOS_ID, PAD_ID


def test_punctuation_is_split_off_and_case_is_lost() -> None:
    assert words("Der Junge, der isst.") == ["der", "junge", ",", "der", "isst", "."]


def test_ids_begin_behind_the_special_ones_and_unknown_words_share_one() -> None:
    vocabulary = Vocabulary([["b", "a"], ["c", "a"]])
    assert len(vocabulary) == NUM_SPECIAL + 3
    assert vocabulary.encode(["a", "b", "c", "d"]) == [4, 5, 6, UNKNOWN_ID]


def test_batches_have_ends_and_padding() -> None:
    vocabulary = Vocabulary([["a", "b", "c"]])
    batch = vocabulary.encode_batch([["a"], ["a", "b", "c"]])
    assert batch.tolist() == [[BOS_ID, 4, EOS_ID, PAD_ID, PAD_ID], [BOS_ID, 4, 5, 6, EOS_ID]]
    assert padded([[1], [2, 3]]).tolist() == [[1, PAD_ID], [2, 3]]


def test_a_few_thousand_captions_have_every_word_of_the_others() -> None:
    vocabulary = Vocabulary(english("train", 3000))
    assert not any(UNKNOWN_ID in vocabulary.encode(sentence) for sentence in english("test", 311))
