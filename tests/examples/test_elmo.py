"""ELMo: what each direction sees, the scalar mix, padding, and the tree that the probe asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from elmo import BiLM, DirectionalLSTM, ScalarMix, clauses, main, probe_accuracy, reversal, word_layers
from torch import Tensor, nn

from transformer import BOS_ID, EOS_ID, PAD_ID, UserError
from transformer.data.builtin import builtin_pairs

VOCAB_SIZE, D_MODEL = 23, 5


def bilm(num_layers: int = 2) -> BiLM:
    torch.manual_seed(1)
    return BiLM(VOCAB_SIZE, D_MODEL, num_layers).double()


def sentence(length: int, seed: int = 2) -> Tensor:
    return torch.randint(4, VOCAB_SIZE, (1, length), generator=torch.Generator().manual_seed(seed))


def seen(hidden: Tensor, position: int, x: Tensor) -> list[int]:
    """The positions of the input x (1, T, D) that move the hidden state (1, T, D) of one."""
    weights = torch.linspace(1, 2, hidden.size(2), dtype=hidden.dtype)
    (gradient,) = torch.autograd.grad((hidden[0, position] * weights).sum(), x, retain_graph=True)
    return (gradient[0].abs().amax(dim=1) > 0).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("layer", [0, 1])
def test_the_past_never_sees_the_future_and_the_future_never_the_past(layer: int) -> None:
    model, ids = bilm(), sentence(7)
    x = model.embedding(ids).detach().requires_grad_()
    hook = model.embedding.register_forward_hook(lambda _, inputs, __: x if torch.equal(inputs[0], ids) else x.flip(1))
    past, future = model.directions(ids)
    hook.remove()
    for position in range(7):
        assert seen(past[layer], position, x) == list(range(position + 1))
        assert seen(future[layer], position, x) == list(range(position, 7))


def test_directions_of_equal_lstms_are_swapped_by_reversing_the_sentence() -> None:
    model, ids = bilm(), sentence(11)
    model.future.load_state_dict(model.past.state_dict())
    past, future = model.directions(ids)
    past_reversed, future_reversed = model.directions(ids.flip(1))
    for layer in range(2):
        torch.testing.assert_close(past[layer], future_reversed[layer].flip(1))
        torch.testing.assert_close(future[layer], past_reversed[layer].flip(1))
    assert model.losses(ids)[0].item() == pytest.approx(model.losses(ids.flip(1))[1].item())


def test_directions_share_embedding_and_softmax_but_no_lstm() -> None:
    model, ids = bilm(), sentence(7)
    forward, backward = model.losses(ids)
    gradients = [torch.autograd.grad(loss, [*model.parameters()], allow_unused=True) for loss in (forward, backward)]
    used = [
        {name for (name, _), g in zip(model.named_parameters(), x, strict=True) if g is not None} for x in gradients
    ]
    assert used[0] & used[1] == {"embedding.weight", "output.weight", "output.bias"}
    assert {name.partition(".")[0] for name in used[0] ^ used[1]} == {"past", "future"}


def naive_lstm(layer: nn.LSTM, x: np.ndarray) -> np.ndarray:
    """An LSTM written out for one sequence (T, D)."""
    w, u, b, c = (parameter.detach().numpy() for parameter in layer.parameters())
    h, cell, outputs = np.zeros(D_MODEL), np.zeros(D_MODEL), []
    for x_t in x:
        i, f, g, o = np.split(w @ x_t + b + u @ h + c, 4)
        cell = cell / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(cell) / (1 + np.exp(-o))
        outputs.append(h)
    return np.stack(outputs)


def test_a_direction_is_a_stack_of_lstms_with_residual_connections_but_around_the_first() -> None:
    torch.manual_seed(3)
    model, x = DirectionalLSTM(D_MODEL, 3).double(), torch.randn(1, 7, D_MODEL, dtype=torch.float64)
    first, second, third = (layer.detach().numpy()[0] for layer in model(x))
    np.testing.assert_allclose(first, naive_lstm(model.layers[0], x.numpy()[0]), rtol=1e-9)
    np.testing.assert_allclose(second, first + naive_lstm(model.layers[1], first), rtol=1e-9)
    np.testing.assert_allclose(third, second + naive_lstm(model.layers[2], second), rtol=1e-9)


def test_padding_changes_neither_layers_nor_losses() -> None:
    model, short, long = bilm(), sentence(5), sentence(11, seed=4)
    batch = torch.cat((nn.functional.pad(short, (0, 6), value=PAD_ID), long))
    torch.testing.assert_close(model(batch)[:, :1, :5], model(short))
    for together, one, other in zip(model.losses(batch), model.losses(short), model.losses(long), strict=True):
        assert together.item() == pytest.approx((4 * one.item() + 10 * other.item()) / 14)  # weighted by their pairs


def test_reversal_leaves_padding_at_the_end_and_undoes_itself() -> None:
    ids = torch.tensor([[BOS_ID, 7, 8, EOS_ID, PAD_ID], [BOS_ID, 9, EOS_ID, PAD_ID, PAD_ID]])
    order = reversal(ids)
    turned = ids.gather(1, order)
    assert turned.tolist() == [[EOS_ID, 8, 7, BOS_ID, PAD_ID], [EOS_ID, 9, BOS_ID, PAD_ID, PAD_ID]]
    assert torch.equal(turned.gather(1, order), ids)


def test_losses_are_those_of_the_next_and_of_the_previous_token() -> None:
    model, ids = bilm(), sentence(3)
    past, future = (layers[-1][0] for layers in model.directions(ids))
    log_p = [model.output(h).log_softmax(dim=1) for h in (past, future)]
    a, b, c = ids[0].tolist()
    forward, backward = model.losses(ids)
    assert forward.item() == pytest.approx(-(log_p[0][0, b] + log_p[0][1, c]).item() / 2)
    assert backward.item() == pytest.approx(-(log_p[1][1, a] + log_p[1][2, b]).item() / 2)


def test_layer_0_is_the_static_vector_twice_and_others_join_the_directions() -> None:
    model, ids = bilm(), sentence(7)
    layers, (past, future) = model(ids), model.directions(ids)
    assert layers.shape == (3, 1, 7, 2 * D_MODEL)
    assert torch.equal(layers[0], model.embedding(ids).repeat(1, 1, 2))
    assert torch.equal(layers[2], torch.cat((past[1], future[1]), dim=2))


def test_weights_of_the_mix_sum_to_one_and_are_equal_at_first() -> None:
    mix, layers = ScalarMix(3), torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(mix(layers), layers.mean(dim=0))
    with torch.no_grad():
        mix.w.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
        mix.gamma.fill_(16)
    torch.testing.assert_close(mix(layers), 2 * layers[0] + 4 * layers[1] + 10 * layers[2])
    ones = torch.ones(3, 1)
    torch.testing.assert_close(mix(ones), mix.gamma.expand(1))  # of weights that sum to one, nothing but γ is left


def test_the_words_of_a_batch_are_those_of_its_sentences_in_order() -> None:
    ids = torch.tensor([[BOS_ID, 7, 8, EOS_ID], [BOS_ID, 9, EOS_ID, PAD_ID]])
    model = bilm()
    assert torch.equal(word_layers(model, ids)[0, :, :D_MODEL], model.embedding(torch.tensor([7, 8, 9])))


def test_labels_mark_the_words_of_subordinate_clauses() -> None:
    sentences, labels = clauses("train", 211)
    pairs = [english for english, _ in builtin_pairs("train", 211)]
    assert ["".join(words) for words in sentences] == [text.lower().replace(" ", "") for text in pairs]
    ends = np.cumsum([len(words) for words in sentences])
    assert len(labels) == ends[-1]
    for words, marks in zip(sentences, np.split(np.array(labels), ends[:-1]), strict=True):
        subordinate = {word for word, mark in zip(words, marks, strict=True) if mark}
        assert bool(subordinate) == bool({"that", "who", "whom", "because", "when", "although", "while"} & {*words})
        assert not subordinate & {".", "?"}


def test_a_probe_finds_a_label_that_one_layer_has_and_the_others_have_not() -> None:
    generator = torch.Generator().manual_seed(6)
    layers, labels = torch.randn(3, 401, 7, generator=generator), torch.randint(2, (401,), generator=generator)
    layers[1, :, 2] += 8.0 * labels
    accuracies = [
        probe_accuracy((layers[j][None, :200], labels[:200]), (layers[j][None, 200:], labels[200:]), 101, ScalarMix(1))
        for j in range(3)
    ]
    assert accuracies[1] > 0.97 and max(accuracies[0], accuracies[2]) < 0.65
    mix = ScalarMix(3)
    assert probe_accuracy((layers[:, :200], labels[:200]), (layers[:, 200:], labels[200:]), 101, mix) > 0.97
    assert mix.w.argmax() == 1


def test_a_tiny_run_prints_a_row_for_each_probe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "2", "--batch-size", "3", "--sentences", "300", "--probe-updates", "5"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [row[0] for row in rows[3:]] == ["static vectors (layer 0)", "LSTM layer 1", "LSTM layer 2", "scalar mix"]
    assert sum(map(float, rows[-1][2].split(", "))) == pytest.approx(1, abs=0.011)


def test_a_batch_of_more_than_all_sentences_is_an_error() -> None:
    with pytest.raises(UserError, match="--batch-size 12 is more than --sentences"):
        main(["--batch-size", "12", "--sentences", "11"])
