"""A model as Marian's own files, which OPUS-MT releases: .npz, decoder.yml, vocabularies and SentencePiece models.

Marian starts the decoder from a zero vector and has neither a row for it nor one for padding. So only a model whose <s>
is zero goes out in this form, such as one that was read from it, and both rows are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from transformer.errors import ExportError
from transformer.interop.exported import Exported
from transformer.interop.huggingface import difference_of, marian_rows, starts_from_zero
from transformer.interop.marian_weights import OUTPUT_BIAS, SHARED, SOURCE, TARGET, Sizes, to_marian
from transformer.interop.parts import Parts, matrices_of, parts_of
from transformer.interop.tokenizer_files import numbered, piece_names, with_codes, write_sentencepiece
from transformer.model.alternatives import embeddings

TITLE = "OPUS-MT"
_MODEL, _DECODER = "model.npz", "decoder.yml"
_NORM_EPS = 1e-5  # which converters of this form take
_OTHERS = (embeddings.DecoderTiedEmbedding, embeddings.BiasedEmbedding, embeddings.BiasedDecoderTiedEmbedding)
# Weights within a layer: the name in transformers, and the one here.
_PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
_ATTENTIONS = {"self_attn": "self", "encoder_attn": "context"}
_FEED_FORWARD = {"fc1": "1", "fc2": "2"}
_NORMS = {"self_attn_layer_norm": "self_Wo", "encoder_attn_layer_norm": "context_Wo", "final_layer_norm": "ffn_ffn"}
_EMBEDDINGS = {SHARED: "Wemb", SOURCE: "encoder_Wemb", TARGET: "decoder_Wemb"}

Array = npt.NDArray[Any]


def write_opus(exported: Exported, directory: Path) -> list[str]:
    """Write a release; returns what a user should know of it.

    ExportError if Marian has no place for a part of the model, or its decoder does not start from zero.
    """
    model, tokenizer, search = exported.model, exported.tokenizer, exported.config.search
    parts, matrices = parts_of(model, TITLE, _OTHERS), matrices_of(model)
    if not starts_from_zero(matrices):
        raise ExportError(
            f"{TITLE} starts the decoder from a zero vector; this model has learned another, in the row of <s>: "
            "take --to hf, which names it"
        )
    if parts.activation == "gelu":
        raise ExportError(f"{TITLE} has no place for model.activation=gelu: Marian's is another approximation")
    names = ["vocab.yml"] * 2
    if tokenizer.is_separate:
        names = ["source.vocab.yml", "target.vocab.yml"]
    for name, side in zip(names, (tokenizer.source, tokenizer), strict=True):
        pieces = with_codes(piece_names(side, marian_rows(len(side))[:-1]), exported.config.data.tags)
        (directory / name).write_text(_vocabulary(pieces), encoding="utf-8")
    arrays = dict(_arrays(exported, parts))
    arrays["special:model.yml"] = _as_bytes(_description(parts, exported))
    save: Any = np.savez  # whose names of arrays mypy takes for its options
    save(directory / _MODEL, **arrays)
    decoder: dict[str, Any] = {"models": [_MODEL], "vocabs": names, "beam-size": search.beam}
    decoder |= {"normalize": 0.0 if search.length_penalty == "none" else search.alpha, "word-penalty": 0}
    decoder |= {"allow-unk": search.allow_unknown, "mini-batch": 1, "maxi-batch": 1, "relative-paths": True}
    (directory / _DECODER).write_text(yaml.safe_dump(decoder, sort_keys=False), encoding="utf-8")
    write_sentencepiece(tokenizer, directory)
    return list(_notes(exported, parts))


def _arrays(exported: Exported, parts: Parts) -> Iterator[tuple[str, Array]]:
    """All weights under Marian's names; matrices are those of transformers, transposed, and vectors are rows."""
    model, tokenizer = exported.model, exported.tokenizer
    target = torch.tensor(marian_rows(len(tokenizer))[:-1])
    rows = {SHARED: target, TARGET: target, SOURCE: torch.tensor(marian_rows(len(tokenizer.source))[:-1])}
    for name, weight in to_marian(model.state_dict(), Sizes(parts.num_layers, parts.num_decoder_layers)).items():
        array = weight.detach().float().numpy()
        if name in _EMBEDDINGS:
            yield _EMBEDDINGS[name], array[rows[name].numpy()]
        elif name == OUTPUT_BIAS:
            yield "decoder_ff_logit_out_b", np.ascontiguousarray(array[:, target.numpy()])
        else:
            yield _layer_name(name), np.ascontiguousarray(array.T) if array.ndim == 2 else array[None]


def _layer_name(name: str) -> str:
    """Such as `encoder_l1_self_Wq` of `model.encoder.layers.0.self_attn.q_proj.weight`."""
    match = re.fullmatch(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    assert match is not None
    stack, number, part, kind = match.groups()
    first, _, last = part.partition(".")
    if last:
        own = f"{_ATTENTIONS[first]}_{'W' if kind == 'weight' else 'b'}{_PROJECTIONS[last]}"
    elif part in _FEED_FORWARD:
        own = f"ffn_{'W' if kind == 'weight' else 'b'}{_FEED_FORWARD[part]}"
    else:
        own = f"{_NORMS[part]}_ln_{'scale' if kind == 'weight' else 'bias'}"
    return f"{stack}_l{int(number) + 1}_{own}"


def _description(parts: Parts, exported: Exported) -> str:
    """Marian's configuration of the model, in its words."""
    is_tied = matrices_of(exported.model).source is matrices_of(exported.model).target
    return yaml.safe_dump(
        {
            "type": "transformer",
            "dim-emb": parts.d_model,
            "dim-vocabs": [len(exported.tokenizer.source) - 2, len(exported.tokenizer) - 2],
            "enc-depth": parts.num_layers,
            "dec-depth": parts.num_decoder_layers,
            "transformer-heads": parts.num_heads,
            "transformer-dim-ffn": parts.d_ff,
            "transformer-ffn-depth": 2,
            "transformer-ffn-activation": parts.activation,
            "transformer-preprocess": "",
            "transformer-postprocess": "dan",
            "transformer-postprocess-emb": "d",
            "transformer-postprocess-top": "",
            "transformer-decoder-autoreg": "self-attention",
            "transformer-no-projection": False,
            "transformer-no-bias": False,
            "transformer-no-affine": False,
            "transformer-tied-layers": [],
            "transformer-train-position-embeddings": False,
            "transformer-guided-alignment-layer": "last",
            "transformer-dim-aan": 2048,
            "transformer-aan-depth": 2,
            "transformer-aan-activation": parts.activation,
            "transformer-aan-nogate": False,
            "tied-embeddings": not is_tied,
            "tied-embeddings-src": False,
            "tied-embeddings-all": is_tied,
            "skip": False,
            "layer-normalization": False,
            "right-left": False,
            "ulr": False,
            "version": "v1.9.0",
        },
        sort_keys=False,
    )


def _as_bytes(text: str) -> Array:
    """As Marian stores text, with a NUL at the end."""
    return np.frombuffer(text.encode() + b"\0", np.int8)


def _vocabulary(names: list[str]) -> str:
    """A line per piece, with its number; quoted so that Marian's and every other reader of YAML reads the same."""
    return "".join(f"{_quoted(name)}: {number}\n" for name, number in numbered(names).items())


def _quoted(name: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"'}
    characters = (escapes.get(x) or (x if x.isprintable() else f"\\U{ord(x):08x}") for x in name)
    return '"' + "".join(characters) + '"'


def _notes(exported: Exported, parts: Parts) -> list[str]:
    notes, search = [], exported.config.search
    if parts.norm_eps != _NORM_EPS:
        notes.append(
            f"model.norm_eps is {parts.norm_eps:g} here, and fixed in each engine that reads this form: "
            f"{difference_of(parts.norm_eps)}"
        )
    lacking = {"max_length": None, "min_length": 0, "no_repeat_ngram": 0}
    if given := [
        f"search.{name}={getattr(search, name)}" for name, none in lacking.items() if getattr(search, name) != none
    ]:
        notes.append(f"{_DECODER} has no place for {', '.join(given)}")
    if exported.ranks_otherwise:
        notes.append(f"Marian divides log P by |Y|^{search.alpha:g}, not by ((5 + |Y|) / 6)^{search.alpha:g}")
    return notes
