"""BERT: Hugging Face's model, its published sizes, segments, and which pieces are hidden."""

from __future__ import annotations

import math
import re

import pytest
import torch
from bert import BERT, MASK_ID, NUM_SPECIAL, SIZES, corrupted, joined, main
from report import count_parameters
from torch import Tensor, nn

from transformer import BOS_ID, EOS_ID, PAD_ID, Tokenizer, UserError

VOCAB_SIZE = 31
PAIRS = [([7, 8, 9], [10, 11]), ([12], [13, 14, 15, 16, 17]), ([18, 19], [20])]


def bert() -> BERT:
    torch.manual_seed(1)
    model = BERT(VOCAB_SIZE, 2, 12, 3, 20, max_positions=19).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def hugging_face_of(model: BERT) -> nn.Module:
    """The same model of the library `transformers`."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    config = transformers.BertConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=19, **sizes)
    theirs = transformers.BertForPreTraining(config).double().eval()
    modules = {
        "bert.embeddings.LayerNorm": model.norm,
        "bert.pooler.dense": model.pooler,
        "cls.predictions.transform.dense": model.transform,
        "cls.predictions.transform.LayerNorm": model.transform_norm,
        "cls.seq_relationship": model.next_sentence,
    }
    for number, layer in enumerate(model.encoder.layers):
        names = {
            "attention.self.query": layer.self_attention.w_q,
            "attention.self.key": layer.self_attention.w_k,
            "attention.self.value": layer.self_attention.w_v,
            "attention.output.dense": layer.self_attention.w_o,
            "attention.output.LayerNorm": layer.norm_1,
            "intermediate.dense": layer.feed_forward.w_1,
            "output.dense": layer.feed_forward.w_2,
            "output.LayerNorm": layer.norm_2,
        }
        modules |= {f"bert.encoder.layer.{number}.{name}": module for name, module in names.items()}
    weights: dict[str, Tensor] = {"cls.predictions.bias": model.output_bias}
    for name, module in modules.items():
        weights |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    tables = {"word": model.tokens, "position": model.positions, "token_type": model.segments}
    weights |= {f"bert.embeddings.{name}_embeddings.weight": table.weight for name, table in tables.items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and all("decoder" in name or "_ids" in name for name in missing), "the tied matrix, constants"
    return theirs


@torch.no_grad()
def test_both_heads_are_those_of_hugging_face_with_padding_and_segments() -> None:
    model, (ids, segments) = bert(), joined(PAIRS)
    is_real = ids != PAD_ID
    assert not is_real.all()
    theirs = hugging_face_of(model)(ids, attention_mask=is_real.long(), token_type_ids=segments)
    hidden = model(ids, segments)
    torch.testing.assert_close(
        model.piece_logits(hidden[is_real]), theirs.prediction_logits[is_real], rtol=0, atol=1e-10
    )
    torch.testing.assert_close(model.pair_logits(hidden), theirs.seq_relationship_logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "pretraining", "alone"), [("base", 110_106_428, 109_482_240), ("large", 336_226_108, 335_141_888)]
)
def test_the_published_sizes_have_their_number_of_parameters(size: str, pretraining: int, alone: int) -> None:
    with torch.device("meta"):
        model = BERT(30522, *SIZES[size])
    heads = [model.transform, model.transform_norm, model.next_sentence]
    assert count_parameters(model) == pretraining
    assert pretraining - sum(map(count_parameters, heads)) - model.output_bias.numel() == alone


def test_every_position_reads_every_other_but_no_padding() -> None:
    model, (ids, segments) = bert(), joined(PAIRS)
    embedded: list[Tensor] = []
    model.norm.register_forward_hook(lambda _, __, output: embedded.append(output))
    for row, length in enumerate((ids != PAD_ID).sum(dim=1).tolist()):
        hidden = model(ids[row : row + 1], segments[row : row + 1])
        for position in range(length):
            # The sum of a LayerNorm does not depend on its input: weigh the channels.
            weighted = (hidden[0, position] * torch.arange(12)).sum()
            (gradient,) = torch.autograd.grad(weighted, embedded[-1], retain_graph=True)
            reached = gradient[0].abs().amax(dim=-1) > 1e-9
            assert reached.tolist() == [True] * length + [False] * (ids.size(1) - length)


def test_a_pair_is_joined_with_its_segments() -> None:
    ids, segments = joined(PAIRS)
    assert ids[0].tolist() == [BOS_ID, 7, 8, 9, EOS_ID, 10, 11, EOS_ID, PAD_ID]
    assert segments[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert ids[1].tolist() == [BOS_ID, 12, EOS_ID, 13, 14, 15, 16, 17, EOS_ID]
    assert segments[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]


@torch.no_grad()
def test_segments_enter_by_their_table_alone() -> None:
    model, (ids, segments) = bert(), joined(PAIRS)
    before, other = model(ids, segments), model(ids, 1 - segments)
    assert not torch.allclose(before, other)
    model.segments.weight.copy_(model.segments.weight.flip(0))
    torch.testing.assert_close(model(ids, 1 - segments), before, rtol=0, atol=1e-12)


def long_rows() -> Tensor:
    """Ids (B, L) of 97,000 pieces between [CLS] and two [SEP], with padding."""
    torch.manual_seed(5)
    pieces = torch.randint(NUM_SPECIAL, 1009, (1000, 97))
    pieces[:, 40] = EOS_ID
    ends = [torch.full((1000, 1), special) for special in (BOS_ID, EOS_ID, PAD_ID, PAD_ID)]
    return torch.cat((ends[0], pieces, *ends[1:]), dim=1)


def test_of_the_chosen_pieces_eight_tenths_are_hidden_and_one_tenth_each_replaced_and_kept() -> None:
    ids = long_rows()
    blanks, chosen = corrupted(ids, 1009)
    assert (chosen.sum(dim=1) == 15).all(), "0.15 · 99 pieces, special ones included, rounded"
    number = 15_000
    rates = {"hidden": blanks == MASK_ID, "kept": blanks == ids}
    rates["replaced"] = ~rates["hidden"] & ~rates["kept"]
    for name, rate in (("hidden", 0.8), ("kept", 0.1), ("replaced", 0.1)):
        count, deviation = (rates[name] & chosen).sum().item(), math.sqrt(number * rate * (1 - rate))
        assert abs(count - number * rate) < 4 * deviation, name
    assert torch.equal(blanks[~chosen], ids[~chosen])
    replaced = blanks[rates["replaced"] & chosen]
    assert replaced.min() >= NUM_SPECIAL and len(replaced.unique()) > 700, "by any piece of the vocabulary"


def test_every_piece_is_as_likely_to_be_chosen_and_special_ones_never() -> None:
    ids = long_rows()
    _, chosen = corrupted(ids, 1009)
    assert not chosen[ids < NUM_SPECIAL].any()
    counts = chosen.sum(dim=0)[(ids >= NUM_SPECIAL).all(dim=0)].double()  # of 1,000 rows
    rate = 15 / 96
    deviation = math.sqrt(1000 * rate * (1 - rate))
    assert ((counts - 1000 * rate).abs() < 4.5 * deviation).all()


@pytest.mark.parametrize(("length", "number"), [(0, 0), (1, 1), (3, 1), (8, 2), (117, 18), (200, 20)])
def test_at_least_one_and_at_most_twenty_pieces_are_chosen_where_there_are_any(length: int, number: int) -> None:
    ids, _ = joined([([9] * length, [])])
    _, chosen = corrupted(ids, VOCAB_SIZE)
    assert chosen.sum() == number


def test_only_blanks_have_a_loss() -> None:
    """Targets elsewhere are not looked at; the gradient of other positions comes through attention alone."""
    model, (ids, segments) = bert(), joined(PAIRS)
    torch.manual_seed(3)
    blanks, chosen = corrupted(ids, VOCAB_SIZE)
    hidden = model(blanks, segments)
    loss = nn.functional.cross_entropy(model.piece_logits(hidden[chosen]), ids[chosen])
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert (gradient[chosen].abs().amax(dim=-1) > 0).all()
    assert not gradient[~chosen].any()


@torch.no_grad()
def test_a_new_model_guesses_uniformly() -> None:
    torch.manual_seed(1)
    model = BERT(1009, 2, 48, 4, 96).eval()
    ids = torch.randint(NUM_SPECIAL, 1009, (7, 23))
    hidden = model(ids, torch.zeros_like(ids))
    nll = nn.functional.cross_entropy(model.piece_logits(hidden.flatten(0, 1)), ids.flatten())
    assert nll.item() == pytest.approx(math.log(1009), rel=0.01)


def test_the_first_symbol_of_a_tokenizer_is_the_mask() -> None:
    tokenizer = Tokenizer.train(["a cat", "eine Katze"], 17, symbols=["[MASK]"])
    assert tokenizer.encode(["[MASK]"]) == [[MASK_ID]]


def test_the_example_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        ["--updates", "3", "--pairs", "2000", "--d-model", "8", "--num-layers", "1", "--num-heads", "2", "--batch", "8"]
    )
    rows = [re.split(r" \| ", line.strip("| ")) for line in capsys.readouterr().out.splitlines()[2:-2]]
    assert [row[0] for row in rows] == [
        "frequency of pieces",
        "BERT, B is of another caption",
        "BERT, B is the translation",
    ]
    assert float(rows[0][2]) < math.log(1000) - 0.5 < float(rows[1][2]) < math.log(1000) + 0.5


def test_a_batch_of_one_has_no_wrong_partner() -> None:
    """It would be its own, with the label of a wrong one."""
    with pytest.raises(UserError, match="--batch 1 has no other pair"):
        main(["--batch", "1"])
