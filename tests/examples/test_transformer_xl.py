"""Transformer-XL: relative scores against the formula and XLNet's, and what a memory of segments must not change."""

from __future__ import annotations

import math
import types

import pytest
import torch
import transformer_xl
from torch import Tensor, nn
from torch.testing import assert_close
from transformer_xl import RelativeAttention, TransformerXL, shift

from transformer import MultiHeadAttention, UserError, causal_mask, sinusoidal_positions

B, H, Q, M, D_K, D = 2, 3, 5, 13, 4, 14
V, D_MODEL, LAYERS, SEGMENT = 11, 6, 3, 5


def random_attention() -> RelativeAttention:
    torch.manual_seed(1)
    attention = RelativeAttention(H, D_K, D).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    return attention


def queries_keys_values() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    q, k, v = (torch.randn(B, H, n, d, dtype=torch.float64) for n, d in ((Q, D_K), (M, D_K), (M, 7)))
    return q, k, v


def test_scores_are_the_four_terms_of_the_paper_pair_by_pair() -> None:
    attention, (q, k, _) = random_attention(), queries_keys_values()
    scores = attention.scores(q, k)
    w_r = attention.w_r.weight.view(H, D_K, D)
    table = sinusoidal_positions(M, D, dtype=torch.float64)
    for head in range(H):
        u, v = attention.u[head, 0], attention.v[head, 0]
        for i in range(Q):
            for j in range(M - Q + i + 1):
                r = w_r[head] @ table[M - Q + i - j]
                for row in range(B):
                    terms = q[row, head, i] @ k[row, head, j], q[row, head, i] @ r, u @ k[row, head, j], v @ r
                    assert_close(scores[row, head, i, j], sum(terms) / math.sqrt(D_K))


def test_it_is_xlnets_relative_attention() -> None:
    xlnet = pytest.importorskip("transformers.models.xlnet.modeling_xlnet")
    attention, (q, k, v) = random_attention(), queries_keys_values()
    config = types.SimpleNamespace(d_model=H * D_K, n_head=H, d_head=D_K, layer_norm_eps=1e-6, dropout=0.0)
    theirs = xlnet.XLNetRelativeAttention(config).double()
    with torch.no_grad():
        theirs.r_w_bias.copy_(attention.u[:, 0])
        theirs.r_r_bias.copy_(attention.v[:, 0])
    # Theirs has a row for each distance from M to 1 - Q, sequences first; distances below 0 are masked in both.
    distances = torch.arange(M, -Q, -1)
    table = sinusoidal_positions(M + 1, D, dtype=torch.float64)[distances.clamp(min=0)]
    r = attention.w_r(table).view(-1, 1, H, D_K).expand(-1, B, -1, -1)
    mask = causal_mask(Q, M - Q)
    hidden = (~mask).double()[0, 0][:, :, None, None].expand(-1, -1, B, H)
    q_first, k_first, v_first = (x.permute(2, 0, 1, 3) for x in (q, k, v))
    expected = theirs.rel_attn_core(q_first, k_first, v_first, r, attn_mask=hidden)
    assert_close(attention(q, k, v, mask).permute(2, 0, 1, 3), expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 7), (5, 5), (3, 8)])
def test_the_shift_puts_distances_into_the_columns_of_their_keys(queries: int, keys: int) -> None:
    by_distance = torch.arange(keys - 1, -1, -1).expand(2, queries, -1)
    shifted = shift(by_distance)
    position = torch.arange(keys)
    distance = position[keys - queries :, None] - position
    seen = distance >= 0
    assert torch.equal(shifted[0][seen], distance[seen]) and torch.equal(shifted[1][seen], distance[seen])


def test_only_the_distance_matters() -> None:
    """Scores are the same if four keys fewer precede the queries, which are then at other positions."""
    attention, (q, k, _) = random_attention(), queries_keys_values()
    seen = causal_mask(Q, M - Q - 4)
    assert_close(attention.scores(q, k)[..., 4:] * seen, attention.scores(q, k[:, :, 4:]) * seen)


def random_model(num_layers: int = LAYERS) -> TransformerXL:
    torch.manual_seed(3)
    model = TransformerXL(V, D_MODEL, num_layers, 2, 17).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def read(model: TransformerXL, ids: Tensor, segment: int, memory_length: int) -> Tensor:
    memory: list[Tensor] = []
    logits = []
    for part in ids.split(segment, dim=1):
        found, memory = model(part, memory, memory_length)
        logits.append(found)
    return torch.cat(logits, dim=1)


def ids_of(length: int) -> Tensor:
    return torch.randint(V, (B, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("segment", [1, 4, 5])
def test_segments_with_a_memory_of_all_the_past_are_one_long_segment(segment: int) -> None:
    model, ids = random_model(), ids_of(23)
    whole, _ = model(ids, [], 0)
    assert_close(read(model, ids, segment, 23), whole)
    assert not torch.allclose(read(model, ids, segment, 7), whole)


def test_without_a_memory_each_segment_is_read_alone() -> None:
    model, ids = random_model(), ids_of(23)
    alone = torch.cat([model(part, [], 0)[0] for part in ids.split(SEGMENT, dim=1)], dim=1)
    assert_close(read(model, ids, SEGMENT, 0), alone)


@pytest.mark.parametrize(("memory_length", "reach"), [(0, 5), (5, 5 + 3 * 5), (10, 5 + 3 * 10), (2, 3 * 5 + 2)])
def test_it_reaches_memory_times_layers_back(memory_length: int, reach: int) -> None:
    """Of the last position of a segment; a state of a memory shorter than a segment has seen all of its own segment."""
    model, ids = random_model(), ids_of(40)
    logits = read(model, ids, SEGMENT, memory_length)[0, -1]
    depends = []
    for position in range(40):
        other = ids.clone()
        other[:, position] = (other[:, position] + 1) % V
        depends.append(bool((read(model, other, SEGMENT, memory_length)[0, -1] != logits).any()))
    assert depends == [position >= 40 - reach for position in range(40)]


def test_no_gradient_flows_into_the_memory_but_its_keys_and_values_are_learned_from() -> None:
    model, ids = random_model(num_layers=1), ids_of(2 * SEGMENT)
    first, second = ids.split(SEGMENT, dim=1)
    _, memory = model(first, [], SEGMENT)
    assert not any(each.requires_grad for each in memory)
    # Of a first segment that occurs in no later one, no embedding is trained by the loss of the second.
    embeddings = nn.functional.one_hot(second, V).sum(dim=(0, 1)) > 0
    logits, _ = model(second, memory, SEGMENT)
    projection = model.layers[0].self_attention.w_k
    (of_inputs, of_keys) = torch.autograd.grad(logits[..., 0].sum(), (model.embedding.weight, projection.weight))
    assert (of_inputs[1:][~embeddings[1:]] == 0).all() and not embeddings.all()
    # With the same memory as constants in the projection, the gradient of W^K would be another.
    (of_segment_alone,) = torch.autograd.grad(model(second, [], 0)[0][..., 0].sum(), projection.weight)
    assert (of_keys - of_segment_alone).abs().max() > 1e-3


def test_the_future_has_no_effect() -> None:
    model, ids = random_model(), ids_of(23)
    other = ids.clone()
    other[:, 14:] = (other[:, 14:] + 1) % V
    same = read(model, ids, SEGMENT, 7)[:, :14], read(model, other, SEGMENT, 7)[:, :14]
    assert torch.equal(*same)


def test_the_parameters_are_those_of_the_paper() -> None:
    """W_R beside the four projections, and u and v per head."""
    attention = MultiHeadAttention(D, 2, attention=RelativeAttention(2, D // 2, D))
    assert sum(parameter.numel() for parameter in attention.parameters()) == 5 * D**2 + 2 * D


def test_the_loss_is_that_of_all_characters_but_the_first() -> None:
    model, text = random_model(), ids_of(SEGMENT * 3 + 1)
    found = transformer_xl.evaluate(model, text, SEGMENT, 2 * SEGMENT)
    log_probs = read(model, text[:, :-1], SEGMENT, 2 * SEGMENT).log_softmax(-1)
    losses = -log_probs.gather(2, text[:, 1:, None])[..., 0]
    assert_close(found, losses.view(B, 3, SEGMENT).mean(dim=(0, 1)))


def test_the_text_is_pythons_documentation() -> None:
    text = transformer_xl.documentation()
    assert len(text) > 300_000 and text.unique().tolist() == list(range(int(text.max()) + 1))


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = transformer_xl.documentation()[: 16 * 1024]
    monkeypatch.setattr(transformer_xl, "documentation", lambda: text)
    sizes = ["--batch", "3", "--segment", "8", "--memory", "13", "--d-model", "8", "--layers", "1"]
    transformer_xl.main(["--updates", "2", *sizes])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:-2] if "---" not in line]
    assert rows[0][:3] == ["trained with a memory of", "read with 0", "read with 13"]
    assert [row[0] for row in rows[1:]] == ["0", "13"]
    assert all(0 < float(cell) < 10 for row in rows[1:] for cell in row[1:])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--d-model", "30"], "not a multiple of 4"),
        (["--segment", "1024"], "does not fit"),
        (["--batch", "400000"], "cuts the text"),
    ],
)
def test_options_that_do_not_fit_together_are_an_error(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        transformer_xl.main(argv)
