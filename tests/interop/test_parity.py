"""Marian models against `transformers`: ids, logits, gradients and outputs of searches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from marian_files import D_MODEL, LANGUAGES, HuggingFace, pairs
from torch import Tensor
from torch.testing import assert_close

from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from transformer.inference.translator import Translator
from transformer.interop.foreign import read_model
from transformer.model.embeddings import sinusoidal_positions
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint

KINDS: dict[str, dict[str, Any]] = {
    "joint": {"end_bias": 4.5},
    "separate": {"separate": True},
    "end inside": {"end_inside": True, "activation_function": "relu", "end_bias": 5.0},
    "separate, end inside": {"separate": True, "end_inside": True, "activation_function": "gelu", "end_bias": 5.0},
    "unequal depths": {"encoder_layers": 3, "decoder_layers": 1, "end_bias": 4.5},
    "float16": {"half": True, "end_bias": 4.5},
}
HARD_LINES = [
    "",
    " ",
    "A  double   space, and tabs\tinside ",
    "An unseen Wörd: Ж, 東京! 🎉",
    ">>deu<< A dog sleeps.",
    ">>deu<<A dog sleeps.",
    ">>xyz<< A dog sleeps.",
    ">> A dog << sleeps.",
    "A dog >>deu<< sleeps.",
    "<a> & <b>",
    "▁▁",
    "ﬁne ½ Å",
    "don't “quote” — it…",
    "x" * 201,
    "1,234.56 %",
    "\u200bA zero width\u200d space",
]


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sentencepiece_models: tuple[bytes, bytes]
) -> HuggingFace:
    directory = tmp_path_factory.mktemp("kind") / "marian"
    return HuggingFace(directory, sentencepiece_models, languages=LANGUAGES, **KINDS[request.param])


class Both:
    """The same model there and here, and the ids there of each of ours."""

    def __init__(self, theirs: HuggingFace) -> None:
        self.theirs = theirs
        checkpoint, _ = locate_checkpoint(theirs.directory)
        _, self.tokenizer, self.model = load_checkpoint(checkpoint)
        self.model.eval()
        self.source_order, self.target_order = (x.order() for x in read_model(theirs.directory).vocabularies)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Source and target ids, there and here; the targets are shifted right."""
        sources, targets = zip(*pairs("test", 11), strict=True)
        there = self.theirs.tokenizer(list(sources), return_tensors="pt", padding=True)
        here = pad([[*ids, EOS_ID] for ids in self.tokenizer.source.encode(list(sources))])
        tgt = [[BOS_ID, *ids[:7]] for ids in self.tokenizer.encode(list(targets))]
        length = min(map(len, tgt))
        tgt = [ids[:length] for ids in tgt]
        tgt_there = torch.tensor([[self.target_order[id_] for id_ in ids] for ids in tgt])
        return there.input_ids, tgt_there, here, torch.tensor(tgt)

    def logits(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of all pieces that both have, there and here, in our order."""
        theirs, ours = self.theirs.model.to(dtype), self.model.to(dtype)
        table = sinusoidal_positions(97, D_MODEL)  # to the last bit
        for stack in (theirs.model.encoder, theirs.model.decoder):
            stack.embed_positions.weight.data = torch.cat((table[:, 0::2], table[:, 1::2]), dim=1).to(dtype)
        src_there, tgt_there, src, tgt = self.batch()
        mask = src_there != self.theirs.vocabularies[0]["<pad>"]
        a = theirs(input_ids=src_there, attention_mask=mask.long(), decoder_input_ids=tgt_there).logits
        b = ours(src, tgt)
        kept = torch.tensor([id_ for id_ in range(len(self.target_order)) if id_ not in (PAD_ID, BOS_ID)])
        return a[..., torch.tensor(self.target_order)[kept]], b[..., kept]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_those_of_transformers(kind: HuggingFace, dtype: torch.dtype) -> None:
    theirs, ours = Both(kind).logits(dtype)
    assert theirs.abs().max() > 1
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_gradients_of_the_matrix_are_those_of_transformers(hugging_face: HuggingFace) -> None:
    both = Both(hugging_face)
    theirs, ours = both.logits(torch.float64)
    upstream = torch.randn_like(ours)
    (expected,) = torch.autograd.grad(theirs, both.theirs.model.model.shared.weight, upstream)
    (gradient,) = torch.autograd.grad(ours, both.model.embedding.weight, upstream)
    both.theirs.model.float()
    order = torch.tensor([*range(0, D_MODEL, 2), *range(1, D_MODEL, 2)])
    rows = torch.tensor(both.source_order[BOS_ID + 1 :])
    # The start of the decoder apart: torch.nn.Embedding gives the row of the padding no gradient for being an input.
    assert_close(gradient[BOS_ID + 1 :][:, order], expected[rows], rtol=0, atol=1e-10)


def test_ids_are_those_of_transformers(kind: HuggingFace) -> None:
    both = Both(kind)
    sources, targets = (list(side) for side in zip(*pairs("train", 397), strict=True))
    for texts, tokenizer, order, options in (
        (sources + HARD_LINES, both.tokenizer.source, both.source_order, "text"),
        (targets + HARD_LINES, both.tokenizer, both.target_order, "text_target"),
    ):
        expected = kind.tokenizer(**{options: texts})["input_ids"]
        found = [[order[id_] for id_ in [*ids, EOS_ID]] for ids in tokenizer.encode(texts)]
        for text, a, b in zip(texts, found, expected, strict=True):
            if text.strip("\u200b\u200d ▁"):
                assert a == b, text


def test_ids_of_a_thousand_lines_are_those_of_transformers(hugging_face: HuggingFace) -> None:
    both, lines = Both(hugging_face), [source for source, _ in pairs("train", 997)]
    expected = hugging_face.tokenizer(lines)["input_ids"]
    ids = both.tokenizer.source.encode(lines)
    assert [[both.source_order[id_] for id_ in [*x, EOS_ID]] for x in ids] == expected


def test_text_of_ids_is_that_of_transformers(hugging_face: HuggingFace) -> None:
    both = Both(hugging_face)
    ids = both.tokenizer.encode([target for _, target in pairs("test", 53)])
    known = [x for x in ids if 1 not in x]
    theirs = [[both.target_order[id_] for id_ in x] for x in known]
    assert len(known) > 5
    assert both.tokenizer.decode(known) == hugging_face.tokenizer.batch_decode(theirs, skip_special_tokens=True)


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (2, 0.0), (4, 0.0), (6, 0.0), (4, 1.0)])
def test_searches_find_what_generate_finds(kind: HuggingFace, beam: int, alpha: float) -> None:
    translator = Translator.load(kind.directory, device="cpu", precision="fp32")
    translator.tag = ">>deu<<"
    order = read_model(kind.directory).vocabularies[1].order()
    texts, limit = [source for source, _ in pairs("test", 13)], 23
    batch = kind.tokenizer([f">>deu<< {text}" for text in texts], return_tensors="pt", padding=True)
    # Without a penalty, a search is over when the best has ended, by either rule.
    options = {"num_beams": beam, "do_sample": False, "length_penalty": alpha}
    options |= {"early_stopping": "never" if alpha else False}
    options |= {"max_length": limit + 1, "min_length": 0, "bad_words_ids": [[order[BOS_ID]], [order[1]]]}
    with torch.no_grad():  # out of the softmax, as in Marian itself and here
        kind.model.float().final_logits_bias[0, order[BOS_ID]] = -100.0
    generated = kind.model.generate(**batch, **options, return_dict_in_generate=True, output_scores=True)
    search: Any = {"length_penalty": "power" if alpha else "none", "alpha": alpha, "max_length": limit}
    found = translator.translate_nbest(texts, nbest=1, beam=beam, **search)
    end, num_ended = order[EOS_ID], 0
    for number, (row, (best,)) in enumerate(zip(generated.sequences.tolist(), found, strict=True)):
        row = row[1 : row.index(end, 1) + 1] if end in row[1:] else row[1:]
        ours = [order[id_] for id_ in best.ids]
        is_cut = max(len(row), len(ours)) >= limit  # there, the last piece is then </s>, for nothing
        if alpha and not is_cut and ours != row:  # it goes on after `beam` have ended, which has to pay off
            assert generated.sequences_scores[number] > best.score
        elif beam == 1 or not is_cut:
            assert ours[: limit - 1] == row[: limit - 1]
        num_ended += not is_cut
    assert num_ended > (0 if alpha else 2)


def test_a_model_is_loaded_without_the_network(hugging_face: HuggingFace, no_network: None) -> None:  # noqa: ARG001
    translator = Translator.load(hugging_face.directory, device="cpu")
    assert len(translator.translate(["A man is sleeping.", ""])) == 2
    assert translator.origin == str(hugging_face.directory)
