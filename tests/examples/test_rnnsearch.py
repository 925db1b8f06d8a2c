"""RNNenc and RNNsearch: the equations of Bahdanau et al. (2015), and what a search relies on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rnnsearch import GRU, RNNenc, RNNsearch, State
from torch import Tensor, nn

from transformer import BOS_ID, EOS_ID, PAD_ID, Translator, beam_search, greedy_search, load_config, load_model
from transformer.model.alternatives.scores import AdditiveAttention
from transformer.training.trainer import Trainer

VOCAB_SIZE, M, N = 23, 11, 7
LENGTHS = (5, 2, 7, 3)
MODELS = pytest.mark.parametrize("model", [RNNsearch, RNNenc], indirect=True)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> RNNsearch:
    torch.manual_seed(1)
    made: RNNsearch = request.param(VOCAB_SIZE, M, N).eval().double()
    return made


@pytest.fixture
def search() -> RNNsearch:
    torch.manual_seed(2)
    return RNNsearch(VOCAB_SIZE, M, N).eval().double()


def sources(lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """Random ids (B, S), padded behind their </s>."""
    src = torch.full((len(lengths), max(lengths) + 1), PAD_ID)
    generator = torch.Generator().manual_seed(3)
    for row, length in zip(src, lengths, strict=True):
        row[:length] = torch.randint(4, VOCAB_SIZE, (length,), generator=generator)
        row[length] = EOS_ID
    return src


def targets(rows: int, length: int) -> Tensor:
    return torch.randint(4, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(4))


def next_logits(model: RNNsearch, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    hidden, state = model.decode(tokens[:, None], state)
    return model.logits(hidden[:, -1]), state


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def array(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().numpy())


def gru_by_hand(gru: GRU, x: np.ndarray, h: np.ndarray, more: np.ndarray | None = None) -> np.ndarray:
    """One step from an input (m,) and a state (n,); `more` (3n,) is added to W x."""
    n = len(h)
    (w_z, w_r, w), (b_z, b_r, b) = (np.split(array(p), 3) for p in (gru.w.weight, gru.w.bias))
    c_z, c_r, c = np.split(np.zeros(3 * n) if more is None else more, 3)
    u_z, u_r = np.split(array(gru.u_gates.weight), 2)
    z, r = sigmoid(w_z @ x + b_z + u_z @ h + c_z), sigmoid(w_r @ x + b_r + u_r @ h + c_r)
    return (1 - z) * h + z * np.tanh(w @ x + b + array(gru.u.weight) @ (r * h) + c)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_gru_is_the_papers(backwards: bool) -> None:
    torch.manual_seed(5)
    gru, x = GRU(M, N).double(), torch.randn(3, 5, M, dtype=torch.float64)
    states = gru(x, torch.ones(3, 5, dtype=torch.bool), backwards=backwards)  # (3, 5, N)
    for inputs, found in zip(array(x), array(states), strict=True):
        h = np.zeros(N)
        for i in range(5)[:: -1 if backwards else 1]:
            h = gru_by_hand(gru, inputs[i], h)
            np.testing.assert_allclose(found[i], h, atol=1e-12)


def test_with_a_diagonal_matrix_the_gru_is_that_of_torch_with_another_sign_of_z() -> None:
    """Then U (r ∘ h) = r ∘ (U h), which is where torch differs; padding is what its packed sequences skip."""
    torch.manual_seed(6)
    forwards, backwards = GRU(M, N), GRU(M, N)
    theirs = nn.GRU(M, N, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for gru, suffix in ((forwards, ""), (backwards, "_reverse")):
            gru.u.weight.copy_(torch.diag(torch.randn(N)))
            for name, (z, r, candidate) in {
                "weight_ih": gru.w.weight.chunk(3),
                "bias_ih": gru.w.bias.chunk(3),
                "weight_hh": (*gru.u_gates.weight.chunk(2), gru.u.weight),
            }.items():
                getattr(theirs, f"{name}_l0{suffix}").copy_(torch.cat((r, -z, candidate)))
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
    x, lengths = torch.randn(len(LENGTHS), max(LENGTHS), M), torch.tensor(LENGTHS)
    mask = torch.arange(max(LENGTHS)) < lengths[:, None]  # (B, S)
    found = torch.cat((forwards(x, mask), backwards(x, mask, backwards=True)), dim=-1)  # (B, S, 2N)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(found[mask], expected[mask])


def test_recurrent_matrices_are_orthogonal_at_first() -> None:
    gru = GRU(M, N)
    for square in (*gru.u_gates.weight.chunk(2), gru.u.weight):
        torch.testing.assert_close(square @ square.T, torch.eye(N))


def test_a_step_of_the_decoder_is_the_papers(search: RNNsearch) -> None:
    src, tgt = sources((3,)), targets(1, 2)
    state = search.encode(src)
    hidden, _ = search.decode(tgt, state)
    h, s = array(state.annotations[0]), array(state.hidden[0])
    np.testing.assert_allclose(s, np.tanh(array(search.w_s.weight) @ h[0, N:] + array(search.w_s.bias)), atol=1e-12)
    w_a, u_a, v, c_all = (array(p.weight) for p in (search.w_a, search.u_a, search.v, search.c))
    for i, y in enumerate(array(search.embedding(tgt[0]))):
        scores = np.array([v[0] @ np.tanh(w_a @ s + array(search.w_a.bias) + u_a @ h_j) for h_j in h])
        weights = np.exp(scores) / np.exp(scores).sum()
        c = sum(weight * h_j for weight, h_j in zip(weights, h, strict=True))
        before_maxout = array(search.output.weight) @ np.concatenate((s, c, y)) + array(search.output.bias)
        t = [max(before_maxout[2 * k], before_maxout[2 * k + 1]) for k in range(M)]
        np.testing.assert_allclose(array(hidden[0, i]), t, atol=1e-12)
        s = gru_by_hand(search.gru, y, s, c_all @ c)


def test_the_attention_is_the_additive_score_of_our_alternatives(search: RNNsearch) -> None:
    """With identity for the projection of keys, which RNNsearch has from U_a, and one head."""
    additive = AdditiveAttention(1, N).double()
    state = search.encode(sources())
    with torch.no_grad():
        search.w_a.bias.zero_()
        additive.w_q[0], additive.w_k[0], additive.v[0] = search.w_a.weight, torch.eye(N), search.v.weight[0]
        q = additive.queries(state.hidden[:, None, None], 0)  # (B, 1, 1, N)
        k, mask = additive.keys(state.keys[:, None], 0), state.mask[:, None, None]  # (B, 1, S, N), (B, 1, 1, S)
        torch.testing.assert_close(search.attention(state), additive.weights(q, k, mask)[:, 0, 0])
        context = additive(q, k, state.annotations[:, None], mask)[:, 0, 0]
        torch.testing.assert_close(search.context(state), context)


def test_attention_sums_to_one_over_tokens_and_gives_padding_nothing(search: RNNsearch) -> None:
    src = sources()
    weights = search.attention(search.encode(src))  # (B, S)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(src), dtype=weights.dtype))
    assert (weights[src == PAD_ID] == 0).all() and (weights[src != PAD_ID] > 0).all()


def test_attention_is_uniform_where_v_is_zero(search: RNNsearch) -> None:
    """The paper starts there (appendix B.1)."""
    nn.init.zeros_(search.v.weight)
    weights = search.attention(search.encode(sources()))
    for row, length in zip(weights, LENGTHS, strict=True):
        torch.testing.assert_close(row[: length + 1], torch.full((length + 1,), 1 / (length + 1), dtype=row.dtype))


def test_each_half_of_an_annotation_reads_from_its_side(search: RNNsearch) -> None:
    src = sources((7,))
    other = src.clone()
    other[0, 3] = src[0, 3] % (VOCAB_SIZE - 4) + 4
    is_equal = (search.encode(src).annotations == search.encode(other).annotations)[0]  # (S, 2N)
    assert is_equal[:3, :N].all() and not is_equal[3:, :N].all(dim=-1).any()
    assert is_equal[4:, N:].all() and not is_equal[:4, N:].all(dim=-1).any()


@MODELS
def test_padding_and_other_sentences_change_nothing(model: RNNsearch) -> None:
    src, tgt = sources(), targets(len(LENGTHS), 3)
    together, _ = model.decode(tgt, model.encode(src))
    for i, length in enumerate(LENGTHS):
        alone, _ = model.decode(tgt[i : i + 1], model.encode(src[i : i + 1, : length + 1]))
        torch.testing.assert_close(together[i : i + 1], alone)


@MODELS
def test_step_by_step_is_all_at_once(model: RNNsearch) -> None:
    src, tgt = sources(), targets(len(LENGTHS), 5)
    expected, last = model.decode(tgt, model.encode(src))
    state, steps = model.encode(src), []
    for i in range(5):
        hidden, state = model.decode(tgt[:, i : i + 1], state)
        steps.append(hidden)
    torch.testing.assert_close(torch.cat(steps, dim=1), expected)
    torch.testing.assert_close(state.hidden, last.hidden)


@MODELS
def test_later_target_words_change_nothing_before_them(model: RNNsearch) -> None:
    tgt = targets(2, 5)
    other = tgt.clone()
    other[:, 3] = tgt[:, 3] % (VOCAB_SIZE - 4) + 4
    first, second = (model.decode(x, model.encode(sources((4, 6))))[0] for x in (tgt, other))
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.isclose(first[:, 3:], second[:, 3:]).all(dim=-1).any()


@MODELS
def test_selected_rows_go_on_as_they_would_have(model: RNNsearch) -> None:
    tgt = targets(len(LENGTHS), 3)
    _, state = model.decode(tgt, model.encode(sources()))
    expected, _ = next_logits(model, tgt[:, 0], state)
    rows = torch.tensor([[0, 0, 0], [2, 2, 2], [3, 3, 3]])
    found, _ = next_logits(model, tgt[rows.flatten(), 0], state.select(rows))
    torch.testing.assert_close(found, expected[rows.flatten()])


@MODELS
def test_greedy_search_is_beam_1_and_takes_the_most_probable_token(model: RNNsearch) -> None:
    src, limits = sources(), [5, 11, 3, 7]
    options = {"bos_id": BOS_ID, "eos_id": EOS_ID}
    with torch.no_grad():
        greedy = greedy_search(lambda *x: next_logits(model, *x), model.encode(src), limits, **options)
        beam_1 = beam_search(lambda *x: next_logits(model, *x), model.encode(src), limits, beam=1, **options)
        assert [one.ids for one in greedy] == [best[0].ids for best in beam_1]
        for i, one in enumerate(greedy):  # anew from the first word for each
            hidden, _ = model.decode(torch.tensor([[BOS_ID, *one.ids[:-1]]]), model.encode(src[i : i + 1]))
            log_probs = model.logits(hidden[0]).log_softmax(dim=-1)
            assert log_probs.argmax(dim=-1).tolist() == one.ids
            assert one.log_prob == pytest.approx(log_probs.amax(dim=-1).sum().item(), abs=1e-5)


@MODELS
def test_beam_search_finds_what_enumeration_finds(model: RNNsearch) -> None:
    """With as many beams as there are tokens, all sequences of two tokens are compared."""
    src = sources((4, 2))
    with torch.no_grad():
        found = beam_search(
            lambda *x: next_logits(model, *x), model.encode(src), [2, 2], beam=VOCAB_SIZE, alpha=0,
            bos_id=BOS_ID, eos_id=EOS_ID,
        )  # fmt: skip
        for i, (best, *_) in enumerate(found):
            state = model.encode(src[i : i + 1].expand(VOCAB_SIZE, -1))
            tgt = torch.stack((torch.full((VOCAB_SIZE,), BOS_ID), torch.arange(VOCAB_SIZE)), dim=1)
            log_probs = model.logits(model.decode(tgt, state)[0]).log_softmax(dim=-1)  # (V, 2, V)
            finished = {(EOS_ID,): log_probs[0, 0, EOS_ID].item()}
            finished |= {(y, EOS_ID): (log_probs[0, 0, y] + log_probs[y, 1, EOS_ID]).item() for y in range(VOCAB_SIZE)}
            del finished[EOS_ID, EOS_ID]
            assert tuple(best.ids) == max(finished, key=lambda ids: finished[ids])
            assert best.log_prob == pytest.approx(max(finished.values()), abs=1e-5)


def test_the_context_of_rnnenc_is_the_last_state_at_every_step() -> None:
    model = RNNenc(VOCAB_SIZE, M, N).eval()
    contexts: list[Tensor] = []
    model.c.register_forward_hook(lambda _, inputs, __: contexts.append(inputs[0]))
    src = sources()
    model.decode(targets(len(LENGTHS), 5), model.encode(src))
    states = model.forwards(model.embedding(src), src != PAD_ID)  # (B, S, N)
    last = states[range(len(LENGTHS)), LENGTHS]  # at </s>
    assert len(contexts) == 5 and all(torch.equal(context, last) for context in contexts)


def test_rnnenc_is_rnnsearch_with_a_fixed_context(search: RNNsearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all annotations are one vector, attention has nothing to choose from."""
    tgt, state = targets(len(LENGTHS), 5), search.encode(sources())
    fixed = state.annotations[:, :1]
    expected, _ = search.decode(tgt, state._replace(annotations=fixed.expand_as(state.annotations)))
    monkeypatch.setattr(search, "context", lambda state: RNNenc.context(search, state))
    found, _ = search.decode(tgt, state._replace(annotations=fixed))
    torch.testing.assert_close(found, expected)


def test_our_trainer_trains_it_and_our_translator_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its configuration, which names no other architecture: validation, BLEU, checkpoints, prepacking."""
    for module in ("training.trainer", "training.description"):
        monkeypatch.setattr(f"transformer.{module}.build_model", lambda v, model, **_: RNNsearch(v, model.d_model, N))
    sizes = ["model.d_model=16", "data.builtin_size=211", "data.vocab_size=300", "train.tokens_per_update=307"]
    steps = [
        "train.max_steps=5",
        "train.validate_steps=5",
        "train.warmup_steps=2",
        "train.device=cpu",
        "train.precision=fp32",
    ]
    config = load_config("quickstart", [*sizes, *steps, f"run_dir={tmp_path / 'run'}", f"data.cache_dir={tmp_path}"])
    trainer = Trainer.from_config(config)
    before = {name: weight.clone() for name, weight in trainer.weights.model.state_dict().items()}
    assert trainer.fit() == "train.max_steps=5 reached"
    after = trainer.weights.model.state_dict()
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    loaded = load_model(tmp_path / "run")
    torch.testing.assert_close(loaded.state_dict(), after, rtol=0, atol=0)
    texts = ["Two dogs are playing.", "A cat sleeps."]
    plain, prepacked = (Translator.load(tmp_path / "run", device="cpu", prepack=x, precision="fp32") for x in (0, 1))
    assert plain.translate(texts) == prepacked.translate(texts)


@MODELS
def test_every_parameter_is_trained(model: RNNsearch) -> None:
    hidden, _ = model.decode(targets(len(LENGTHS), 3), model.encode(sources()))
    model.logits(hidden).logsumexp(dim=-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_papers_sizes_are_the_defaults() -> None:
    with torch.device("meta"):
        model = RNNsearch(30_000)
    m, n = 620, 1000
    gru = 3 * (m * n + n + n * n)
    alignment, start, context = n * n + n + 2 * n * n + n, n * n + n, 6 * n * n
    output = (3 * n + m) * 2 * m + 2 * m
    total = 30_000 * m + 3 * gru + alignment + start + context + output
    assert sum(p.numel() for p in model.parameters()) == total


def test_a_source_of_padding_alone_does_not_spoil_a_batch(search: RNNsearch) -> None:
    src = torch.cat((sources(), torch.full((1, max(LENGTHS) + 1), PAD_ID)))
    hidden, _ = search.decode(targets(len(src), 3), search.encode(src))
    assert hidden.isfinite().all()
    gradients = torch.autograd.grad(hidden.square().sum(), search.v.weight)
    assert gradients[0].isfinite().all()
