"""TextCNN: the equations of Kim (2014), what it cannot see, and the sentences it is tried on."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import textcnn
import torch
from agreement import NUMBER, corpus, examples, sentence
from report import count_parameters
from textcnn import MAX_NORM, EncoderClassifier, TextCNN, class_loss, shorten
from torch import Tensor

from transformer import PAD_ID, UserError

VOCAB_SIZE, D_MODEL, MAPS, WIDTHS = 17, 5, 3, (2, 3, 5)


@pytest.fixture
def cnn() -> TextCNN:
    torch.manual_seed(1)
    return TextCNN(VOCAB_SIZE, D_MODEL, WIDTHS, MAPS).eval()


@pytest.fixture
def encoder() -> EncoderClassifier:
    torch.manual_seed(1)
    return EncoderClassifier(VOCAB_SIZE, 8, num_heads=2, d_ff=11).eval()


def ids(length: int, seed: int = 2) -> Tensor:
    return torch.randint(1, VOCAB_SIZE, (1, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_features_are_the_largest_response_to_any_window(cnn: TextCNN, length: int) -> None:
    """Each n-gram with at least one word, with nothing on either side of the sentence."""
    words = ids(length)
    x = cnn.embedding(words[0]).detach().numpy()
    expected = []
    for convolution, h in zip(cnn.convolutions, WIDTHS, strict=True):
        weight, bias = (p.detach().numpy() for p in (convolution.weight, convolution.bias))  # (maps, D, h), (maps,)
        padded = np.concatenate((np.zeros((h - 1, D_MODEL)), x, np.zeros((h - 1, D_MODEL))))
        windows = [padded[i : i + h].T for i in range(length + h - 1)]
        expected += [
            max(max(0.0, float((w * window).sum() + b)) for window in windows)
            for w, b in zip(weight, bias, strict=True)
        ]
    np.testing.assert_allclose(cnn.features(words)[0].detach().numpy(), expected, atol=1e-6)
    logits = cnn.output.weight @ torch.tensor(expected, dtype=torch.float32) + cnn.output.bias
    torch.testing.assert_close(cnn(words)[0], logits)


@pytest.mark.parametrize("kind", ["cnn", "encoder"])
def test_padding_and_other_sentences_change_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    if kind == "cnn":
        for convolution in model.convolutions:
            torch.nn.init.constant_(convolution.bias, 3.0)  # so that padding alone would count
            torch.nn.init.constant_(convolution.weight, -1.0)
    rows = [ids(length, length)[0] for length in (1, 3, 11)]
    together = model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID))
    for row, logits in zip(rows, together, strict=True):
        torch.testing.assert_close(model(row[None])[0], logits)


def test_only_the_set_of_n_grams_counts(cnn: TextCNN, encoder: EncoderClassifier) -> None:
    """Between copies of a middle of h - 1 words, parts change places, or come twice: no n-gram is new or lost."""
    middle, first, second, third = (ids(max(WIDTHS) - 1, 3), ids(3, 4), ids(5, 5), ids(2, 6))
    one = torch.cat((middle, first, middle, second, middle, third), dim=1)
    for parts in ((second, first), (first, second, first), (second, first, second)):
        other = torch.cat([*(x for part in parts for x in (middle, part)), middle, third], dim=1)
        torch.testing.assert_close(cnn(one), cnn(other))
        assert not torch.isclose(encoder(one), encoder(other)).any(), "the encoder has positions"


def test_pooling_makes_the_encoder_blind_to_order_only_without_positions(encoder: EncoderClassifier) -> None:
    """Self-attention alone is permutation-equivariant, and the maximum over positions takes no notice of an order."""
    words = ids(7)
    other = words[:, torch.randperm(7, generator=torch.Generator().manual_seed(1))]
    assert not torch.isclose(encoder(words), encoder(other)).any()
    encoder.positions = torch.nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(encoder(words), encoder(other))


def test_weights_of_a_class_are_at_most_3_long(cnn: TextCNN) -> None:
    with torch.no_grad():
        cnn.output.weight.copy_(torch.tensor([[2.0], [0.1]]).expand_as(cnn.output.weight))
    class_loss(cnn, ids(5), torch.tensor([1]))
    long, short = cnn.output.weight.norm(dim=1)
    assert long.item() == pytest.approx(MAX_NORM) and short.item() == pytest.approx(0.1 * 3)  # √9 features
    assert (cnn.output.weight[0] == cnn.output.weight[0, 0]).all()


def test_the_loss_is_the_cross_entropy_of_the_labels(cnn: TextCNN) -> None:
    words, labels = ids(5).repeat(3, 1), torch.tensor([1, 0, 1])
    log_p = cnn(words).log_softmax(dim=-1)
    torch.testing.assert_close(class_loss(cnn, words, labels), -log_p[range(3), labels].mean())


def test_the_defaults_are_the_papers() -> None:
    """Widths 3, 4, 5 with 100 filters each, embeddings of 300, dropout ½."""
    model = TextCNN(1000)
    assert count_parameters(model) == 1000 * 300 + 100 * (300 * (3 + 4 + 5) + 3) + 2 * 300 + 2
    assert model.dropout.p == 0.5


@pytest.mark.parametrize(
    ("tree", "verb", "distance"),
    [
        ("(S (NP (XX Two) (XX dogs)) (VP (XX are) (VP (XX playing))) (. .))", "are", 1),
        ("(S (NP (NP (XX A) (XX dog)) (XX and) (NP (XX a) (XX cat))) (VP (XX have) (VP (XX slept))) (. .))", "have", 1),
        (
            "(S (NP (NP (XX A) (XX dog)) (SBAR (WHNP (XX that)) (S (NP (XX cats)) (VP (XX are) (VP (XX chasing))))))"
            " (VP (XX is) (ADJP (XX wet))) (. .))",
            "is",
            5,
        ),
        ("(S (NP (XX A) (XX dog)) (VP (XX will) (VP (XX sleep))) (. .))", None, None),
        ("(SQ (XX Is) (NP (XX the) (XX dress)) (XX not) (ADJP (XX yellow)) (. ?))", None, None),
    ],
)
def test_the_verb_farthest_from_its_subject_is_found(tree: str, verb: str | None, distance: int | None) -> None:
    found = sentence(tree)
    if found is None:
        assert verb is None
        return
    assert found.words == [word.lower() for word in re.findall(r"([^\s()]+)\)", tree)]
    assert (found.words[found.verb], found.distance) == (verb, distance)


def test_the_corpus_has_as_many_near_verbs_as_far_ones() -> None:
    sentences = corpus("test", 701)
    near = [one for one in sentences if one.distance == 1]
    assert 2 * len(near) == len(sentences) > 50
    for one in near:
        assert one.words[one.verb] in NUMBER
        number = {"is": 1, "has": 1, "wants": 1}.get(one.words[one.verb], 2)
        if one.verb > 1 and one.words[one.verb - 2] in {"a", "every", "this"} and "and" not in one.words[: one.verb]:
            assert number == 1, one.words


def test_every_second_sentence_has_one_verb_in_the_wrong_number() -> None:
    sentences = corpus("test", 701)
    texts, labels = examples(sentences, random.Random(1))
    assert 0.35 < labels.float().mean() < 0.65
    for words, one, label in zip(texts, sentences, labels.tolist(), strict=True):
        changed = [i for i, (new, old) in enumerate(zip(words, one.words, strict=True)) if new != old]
        assert changed == [one.verb] * label
        assert words[one.verb] == (NUMBER[one.words[one.verb]] if label else one.words[one.verb])
    assert texts == examples(sentences, random.Random(1))[0] != examples(sentences, random.Random(2))[0]


def test_accuracy_is_shown_by_distance(capsys: pytest.CaptureFixture[str]) -> None:
    textcnn.main(["--updates", "3", "--trees", "1200", "--d-model", "16", "--maps", "5", "--d-ff", "7"])
    *table, _, last = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("|")]
    assert rows[0] == [
        "words from subject to verb",
        "sentences",
        "right (%), TextCNN",
        "right (%), Transformer encoder",
    ]
    assert [row[0] for row in rows[2:]] == ["1", "2 to 4", "5 to 7", "8 and more", "all"]
    *parts, whole = [int(row[1]) for row in rows[2:]]
    assert sum(parts) == whole and all(parts)
    assert all(0 <= float(cell) <= 100 for row in rows[2:] for cell in row[2:])
    assert re.fullmatch(r"[\d,]+ and [\d,]+ parameters; \d+ s on .+, \d+ threads?", last)


def test_both_models_are_of_one_size_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[torch.nn.Module] = []
    monkeypatch.setattr(textcnn, "fit", lambda model, *_, **__: models.append(model.eval()))
    textcnn.main(["--trees", "1200"])
    first, second = map(count_parameters, models)
    assert abs(first - second) < 0.02 * first


def test_the_last_update_does_not_lengthen_the_weights_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shortened before each loss, and once more behind the last update."""
    trained: list[torch.nn.Module] = []

    def fit(model: torch.nn.Module, *_: object, **__: object) -> None:
        with torch.no_grad():
            model.get_parameter("output.weight").fill_(7.0)
        trained.append(model.eval())

    monkeypatch.setattr(textcnn, "fit", fit)
    textcnn.main(["--trees", "400", "--batch", "5"])
    for model in trained:
        assert model.get_parameter("output.weight").norm(dim=1).tolist() == pytest.approx([MAX_NORM] * 2)


def test_shorter_weights_stay_as_they_are(cnn: TextCNN) -> None:
    before = cnn.output.weight.detach().clone()
    shorten(cnn)
    assert torch.equal(cnn.output.weight, before)


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["--d-model", "30"], "multiple of the encoder's 4 heads"), (["--trees", "100", "--batch", "99"], "is more than")],
)
def test_options_that_do_not_fit_together_are_an_error(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        textcnn.main(argv)
