"""A model as a directory for Hugging Face's MarianMTModel and MarianTokenizer.

Marian starts the decoder with its <pad>, the last row of the vocabulary, which is zero. Ours has a learned <s> for it,
so the directory names it as `decoder_start_token_id` and keeps our order of rows: pad 0, unk 1, <s> 2, </s> 3. A model
whose <s> is zero, as one that came from Marian, goes out in Marian's order, which all its tools read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from transformer.data.tags import num_tag_pieces
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from transformer.interop.exported import Exported
from transformer.interop.marian_weights import OUTPUT_BIAS, SHARED, SOURCE, TARGET, Sizes, to_marian
from transformer.interop.parts import Matrices, Parts, matrices_of, parts_of
from transformer.interop.tokenizer_files import numbered, piece_names, with_codes, write_json, write_sentencepiece
from transformer.model.alternatives import embeddings
from transformer.model.transformer import Transformer

TITLE = "Marian"
_NORM_EPS = 1e-5  # which is written into transformers' code
_OTHERS = (embeddings.DecoderTiedEmbedding, embeddings.BiasedEmbedding, embeddings.BiasedDecoderTiedEmbedding)


class Order(NamedTuple):
    """Our ids in the order of the rows that are written, per side, and the special ids there."""

    source: list[int]
    target: list[int]
    pad: int
    start: int
    eos: int
    unk: int


def order_of(matrices: Matrices) -> Order:
    """Marian's order for a model whose decoder starts from zero, else ours."""
    sizes = len(matrices.source), len(matrices.target)
    if starts_from_zero(matrices) and sizes[0] == sizes[1]:
        rows = marian_rows(sizes[1])
        return Order(rows, rows, pad=len(rows) - 1, start=len(rows) - 1, eos=0, unk=1)
    return Order([*range(sizes[0])], [*range(sizes[1])], PAD_ID, BOS_ID, EOS_ID, UNK_ID)


def starts_from_zero(matrices: Matrices) -> bool:
    """Whether the vector that starts the decoder is zero."""
    return not matrices.target[BOS_ID].any()


def marian_rows(size: int) -> list[int]:
    """Our ids in Marian's order: </s>, unknown, the pieces, and last <pad>, which is our <s>."""
    return [EOS_ID, UNK_ID, *range(EOS_ID + 1, size), BOS_ID]


def write_huggingface(exported: Exported, directory: Path) -> list[str]:
    """Write weights, configurations and tokenizer; returns what a user should know of them.

    ExportError if Marian has no place for a part of the model.
    """
    model = exported.model
    parts, matrices = parts_of(model, TITLE, _OTHERS), matrices_of(model)
    order = order_of(matrices)
    weights = {name: x.detach().float().contiguous() for name, x in _weights(model, parts, order).items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", _config(exported, parts, matrices, order))
    write_json(directory / "generation_config.json", _generation(exported, order))
    _write_tokenizer(exported, order, directory, is_shared=matrices.source is matrices.target)
    return list(_notes(exported, parts))


def _weights(model: Transformer, parts: Parts, order: Order) -> dict[str, Tensor]:
    """All weights under Marian's names, their rows in its order."""
    weights = to_marian(model.state_dict(), Sizes(parts.num_layers, parts.num_decoder_layers))
    for name, rows in ((SHARED, order.source), (SOURCE, order.source), (TARGET, order.target)):
        if name in weights:
            weights[name] = weights[name][torch.tensor(rows)]
    weights[OUTPUT_BIAS] = weights[OUTPUT_BIAS][:, torch.tensor(order.target)]
    if order.start == order.pad:  # Marian's <pad> has none; ours is there to keep <s> out of translations
        weights[OUTPUT_BIAS][0, order.pad] = 0
    return weights


def _config(exported: Exported, parts: Parts, matrices: Matrices, order: Order) -> dict[str, Any]:
    model = exported.config.model
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "activation_function": parts.activation,
        "activation_dropout": model.activation_dropout,
        "attention_dropout": model.attention_dropout,
        "dropout": model.dropout,
        "d_model": parts.d_model,
        "encoder_layers": parts.num_layers,
        "decoder_layers": parts.num_decoder_layers,
        "encoder_attention_heads": parts.num_heads,
        "decoder_attention_heads": parts.num_heads,
        "encoder_ffn_dim": parts.d_ff,
        "decoder_ffn_dim": parts.d_ff,
        "vocab_size": len(order.source),
        "decoder_vocab_size": len(order.target),
        "share_encoder_decoder_embeddings": matrices.source is matrices.target,
        "tie_word_embeddings": True,
        "scale_embedding": True,
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "max_position_embeddings": exported.num_positions,
        "use_cache": True,
        "dtype": "float32",
        "torch_dtype": "float32",  # its name before transformers 5
        **_special_ids(order),
    }


def _special_ids(order: Order) -> dict[str, int | None]:
    # Without the forced </s>, which costs nothing there: a translation that is cut would win over those that end.
    return {
        "bos_token_id": order.start,
        "eos_token_id": order.eos,
        "pad_token_id": order.pad,
        "decoder_start_token_id": order.start,
        "forced_eos_token_id": None,
    }


def _generation(exported: Exported, order: Order) -> dict[str, Any]:
    """The defaults of `generate`, as near to the model's own search as it comes."""
    search = exported.config.search
    never = sorted({order.pad, order.start} | (set() if search.allow_unknown else {order.unk}))
    return {
        **_special_ids(order),
        "bad_words_ids": [[id_] for id_ in never],
        "num_beams": search.beam,
        "length_penalty": 0.0 if search.length_penalty == "none" else search.alpha,
        # Like here, a sentence is over when nothing better is in sight. "never" goes on as far as the limit, and with
        # length_penalty above 1, outputs that were cut there then win.
        "early_stopping": False,
        "max_length": min(exported.num_positions, (search.max_length or exported.num_positions) + 1),  # with <s>
        "min_length": search.min_length,
        "no_repeat_ngram_size": search.no_repeat_ngram,
    }


def _write_tokenizer(exported: Exported, order: Order, directory: Path, *, is_shared: bool) -> None:
    """SentencePiece models, and the number of each piece, twice unless one matrix is of both sides."""
    tokenizer, data = exported.tokenizer, exported.config.data
    write_sentencepiece(tokenizer, directory)
    names_of_files = ("vocab",) if is_shared else ("vocab", "target_vocab")
    sides = (tokenizer.source, order.source), (tokenizer, order.target)
    for name, (side, ids) in zip(names_of_files, sides, strict=False):
        names = with_codes(piece_names(side, ids), data.tags)
        names[order.pad] = "<pad>"  # in Marian's order, our <s>
        write_json(directory / f"{name}.json", numbered(names))
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": data.src_lang,
        "target_lang": data.tgt_lang,
        "separate_vocabs": not is_shared,
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": exported.num_positions,
    }
    if order.start != order.pad:
        settings["bos_token"] = "<s>"  # so that decoding skips it
    write_json(directory / "tokenizer_config.json", settings)


def difference_of(norm_eps: float) -> str:
    """What changes where this model's ε becomes 1e-5: it is added to variances of about 1."""
    return "logits differ in the fifth digit" if norm_eps <= 1e-4 else "logits differ, and translations may"


def _notes(exported: Exported, parts: Parts) -> list[str]:
    notes, search = [], exported.config.search
    if parts.norm_eps != _NORM_EPS:
        notes.append(
            f"model.norm_eps is {parts.norm_eps:g} here, and {_NORM_EPS:g} in transformers, which cannot be told: "
            f"{difference_of(parts.norm_eps)}"
        )
    if exported.ranks_otherwise:
        notes.append(
            f"generate() divides log P by |Y|^{search.alpha:g}, not by ((5 + |Y|) / 6)^{search.alpha:g}: translations "
            "may differ from those of search.length_penalty=gnmt, not from those of power"
        )
    if tags := exported.config.data.tags:
        notes.append(f"generate() adds no tag: begin each text with its own, such as {tags[0]}")
    for tag in tags:
        if tag.startswith(">>") and (number := num_tag_pieces(exported.tokenizer, tag)) > 1:
            notes.append(f"{tag} is one piece for transformers, and {number} for this model's tokenizer")
    return notes
