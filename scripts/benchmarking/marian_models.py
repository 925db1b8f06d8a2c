"""A model with the sizes of OPUS-MT's and random weights, in the form of each engine."""

from __future__ import annotations

from pathlib import Path

import torch

from transformer.config import Config, DataConfig, ModelConfig, SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from transformer.data.vocabulary_tokenizer import VocabularyTokenizer
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import save_checkpoint

# Of opus-mt-en-de and about a thousand others; Marian has no padding of its own, so ours is one more.
NUM_PIECES = 58_102
SIZES = ModelConfig(
    d_model=512,
    num_layers=6,
    num_heads=8,
    d_ff=2048,
    activation="swish",
    attention_bias=True,
    output_bias=True,
    norm_eps=1e-5,
)
# Engines by the formats that `transformer export` writes for them.
FORMATS = {"transformers": "hf", "ctranslate2": "ct2"}
_SENTENCEPIECE_SIZE = 500  # for words of the built-in corpus, a piece or two each
_SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
_NEVER = -100.0  # the output bias of padding and start, as in models that were imported


def write_models(directory: Path, *, model: ModelConfig = SIZES, num_pieces: int = NUM_PIECES, seed: int = 1) -> None:
    """Write the model for this program into `directory/this`, and for each of `FORMATS`."""
    tokenizer = make_tokenizer(num_pieces)
    torch.manual_seed(seed)
    made = build_model(len(tokenizer), model)
    with torch.no_grad():
        made.embedding.weight[[PAD_ID, BOS_ID]] = 0
        made.get_parameter("embedding.output_bias")[[PAD_ID, BOS_ID]] = _NEVER
    search = SearchConfig(length_penalty="power", alpha=1.0, allow_unknown=False)
    config = Config(model=model, data=DataConfig(corpus="builtin", vocab_size=len(tokenizer)), search=search)
    save_checkpoint(directory / "this", config, tokenizer, made.state_dict())
    exported = Exported.load(directory / "this")
    for engine, form in FORMATS.items():
        export(exported, form, directory / engine)


def make_tokenizer(num_pieces: int) -> Tokenizer:
    """A SentencePiece model with a vocabulary of this many pieces, most of which it never makes."""
    sentences = (side for pair in builtin_pairs("train", 5_000) for side in pair)
    size = min(_SENTENCEPIECE_SIZE, num_pieces)
    trained = Tokenizer.train(sentences, size)
    pieces = trained.pieces(range(EOS_ID + 1, len(trained)))
    unused = (f"unused{number}" for number in range(num_pieces - len(trained)))
    return VocabularyTokenizer(VocabularyTokenizer.pack(trained.model, [*_SPECIALS, *pieces, *unused]))
