"""The word "bank": the sentences, what a static vector cannot know, and the layers of the encoder."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from bank import HALVES, MASK_ID, MaskedLanguageModel, main, places, probe_accuracy
from captions import Vocabulary
from topics import TOPICS, WORDS, sentence
from torch import nn

from transformer import PAD_ID, UserError

VOCABULARY = Vocabulary(sentence(random.Random(seed), topic) for seed in range(301) for topic in TOPICS)


def content(topic: str, half: slice = slice(None)) -> set[str]:
    """The agents and things of a half of a topic."""
    return {word for slot in ("agent", "thing") for word in WORDS[slot][topic].split()[half]}


@pytest.mark.parametrize("topic", TOPICS)
def test_sentences_have_words_of_their_topic_only_but_for_strays(topic: str) -> None:
    draw = random.Random(1)
    (other,) = {*TOPICS} - {topic}
    assert not any(content(other) & {*sentence(draw, topic)} for _ in range(101))
    assert all(len(content(topic) & {*sentence(draw, topic, strays=0.0)}) == 2 for _ in range(101))
    share = sum(len(content(other) & {*sentence(draw, topic, strays=0.1)}) for _ in range(2003)) / 4006
    assert share == pytest.approx(0.1, abs=0.02)


def test_the_probe_is_tested_beside_words_that_it_has_not_seen_in_training() -> None:
    halves = [places(random.Random(2), VOCABULARY, "place", half, 101) for half in HALVES]
    names = ["", "", "", "", *VOCABULARY.words]
    seen = [{names[i] for row in half.ids.tolist() for i in row} for half in halves]
    words = content("money") | content("water")
    assert not seen[0] & seen[1] & words and (seen[0] | seen[1]) >= words


@pytest.mark.parametrize("slot", ["place", "agent"])
def test_positions_are_those_of_the_word(slot: str) -> None:
    found = places(random.Random(3), VOCABULARY, slot, HALVES[0], 53)
    targets = ["bank"] if slot == "place" else [word for topic in TOPICS for word in WORDS["agent"][topic].split()]
    at = found.ids[torch.arange(53), found.positions].tolist()
    assert {*at} <= {*VOCABULARY.encode(targets)}
    assert found.topics.tolist() == [i % 2 for i in range(53)]
    bank = VOCABULARY.ids["bank"]
    assert (found.ids == bank).sum(dim=1).tolist() == [1] * 53


def test_vectors_are_taken_at_the_positions_of_the_word() -> None:
    found = places(random.Random(9), VOCABULARY, "place", HALVES[0], 11)
    state = torch.arange(11 * found.ids.size(1)).view(11, -1, 1)
    expected = [row * found.ids.size(1) + position for row, position in enumerate(found.positions.tolist())]
    assert found.at(state)[:, 0].tolist() == expected


def test_a_static_vector_of_one_word_is_at_chance() -> None:
    """Equal inputs have equal outputs: right in one of two classes of equal size, wrong in the other."""
    half, table = places(random.Random(4), VOCABULARY, "place", HALVES[0], 100), nn.Embedding(len(VOCABULARY), 7)
    vectors = half.at(table(half.ids)).detach()
    assert torch.equal(vectors, vectors[:1].expand_as(vectors))
    assert probe_accuracy(vectors, half.topics, vectors, half.topics) == 0.5


def test_a_probe_separates_what_is_linearly_separable() -> None:
    topics = torch.arange(60) % 2
    vectors = torch.randn(60, 5, generator=torch.Generator().manual_seed(5)) + 6.0 * topics[:, None]
    assert probe_accuracy(vectors[:40], topics[:40], vectors[40:], topics[40:]) == 1.0


def test_states_are_the_input_and_the_outputs_of_all_layers_and_padding_changes_none() -> None:
    torch.manual_seed(6)
    model, ids = MaskedLanguageModel(23, 8, num_layers=3).eval(), torch.randint(4, 23, (2, 7))
    states = model(ids)
    assert len(states) == 4
    torch.testing.assert_close(states[0], model.positions(model.embedding(ids)))
    torch.testing.assert_close(states[-1], model.encoder(states[0]))
    for padded, plain in zip(model(F.pad(ids, (0, 3), value=PAD_ID)), states, strict=True):
        torch.testing.assert_close(padded[:, :7], plain)


def test_the_loss_is_that_of_the_masked_words_alone() -> None:
    torch.manual_seed(7)
    model, ids = MaskedLanguageModel(23, 8).eval(), torch.randint(4, 23, (5, 11))
    ids[2, 6:] = PAD_ID
    torch.manual_seed(8)
    loss = model.loss(ids, share=0.4)
    torch.manual_seed(8)
    is_masked = (torch.rand(5, 11) < 0.4) & (ids != PAD_ID)
    hidden = model(torch.where(is_masked, MASK_ID, ids))[-1]
    log_p = (hidden @ model.embedding.weight.T).log_softmax(dim=-1)
    expected = -log_p.gather(2, ids[..., None])[..., 0][is_masked].mean()
    torch.testing.assert_close(loss, expected)


def test_a_tiny_run_prints_a_row_for_each_vector_and_static_ones_are_at_chance(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--updates", "3", "--sentences", "300", "--probe-sentences", "20"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["static, SGNS", "encoder, input", "encoder, layer 1", "encoder, layer 2"]
    assert rows[2][1] == "0.500"


@pytest.mark.parametrize("option", ["--batch-size", "--probe-sentences"])
def test_numbers_of_which_topics_are_not_equally_many_are_an_error(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} 13"):
        main([option, "13", "--sentences", "12"])
