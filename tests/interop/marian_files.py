"""Marian models with random weights, as Hugging Face and as OPUS-MT write them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from torch import nn

from transformer.data.builtin import builtin_pairs

D_MODEL, N, H, D_FF = 22, 2, 2, 29
LANGUAGES = (">>deu<<", ">>nld<<")
SPECIAL = ("<unk>", "<s>", "</s>")


def pairs(split: str = "train", size: int = 397) -> list[tuple[str, str]]:
    return list(builtin_pairs(split, size))


def train_sentencepiece(lines: Iterable[str], size: int) -> bytes:
    """As OPUS-MT trains them: unigram models with SentencePiece's default ids."""
    model = io.BytesIO()
    options = {"model_type": "unigram", "vocab_size": size, "character_coverage": 1.0, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.Train(sentence_iterator=iter(lines), model_writer=model, **options)
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.IdToPiece(id_) for id_ in range(processor.GetPieceSize())]


def make_vocabulary(pieces: Sequence[str], *, end_inside: bool = False) -> dict[str, int]:
    """Ids of pieces in Marian's order; some pieces of the SentencePiece model never came in training."""
    rest = [piece for piece in dict.fromkeys(pieces) if piece not in SPECIAL]
    rest = [piece for number, piece in enumerate(rest) if number % 37 != 20]
    # Hugging Face has one id of </s> for both sides.
    body = ["<unk>", *rest[:41], "</s>", *rest[41:]] if end_inside else ["</s>", "<unk>", *rest]
    return {piece: id_ for id_, piece in enumerate([*body, "<pad>"])}


def _filled(vocabulary: dict[str, int], size: int) -> dict[str, int]:
    """As many pieces as the other side has: there is one id of the padding for both."""
    unused = {f"unused{id_}": id_ for id_ in range(len(vocabulary) - 1, size - 1)}
    return {piece: id_ for piece, id_ in vocabulary.items() if piece != "<pad>"} | unused | {"<pad>": size - 1}


class HuggingFace:
    """A directory that `transformers` wrote, with its model and tokenizer.

    Args:
        directory: to write.
        models: SentencePiece models of source and target.
        options: `separate` (vocabularies), `end_inside` (</s> in the middle of the vocabulary), `half` (float16),
            `languages` (their codes), `end_bias` (how much </s> is preferred), and those of `MarianConfig`.
    """

    def __init__(self, directory: Path, models: tuple[bytes, bytes], **options: Any) -> None:
        transformers = pytest.importorskip("transformers")
        self.directory = directory
        directory.mkdir(parents=True)
        for side, content in zip(("source", "target"), models, strict=True):
            (directory / f"{side}.spm").write_bytes(content)
        is_separate, end_inside = options.pop("separate", False), options.pop("end_inside", False)
        is_half, languages = options.pop("half", False), options.pop("languages", ())
        end_bias = options.pop("end_bias", 3.0)
        source, target = map(pieces_of, models)
        if is_separate:
            sides = [*languages, *source], target
            vocabularies = tuple(make_vocabulary(pieces, end_inside=end_inside) for pieces in sides)
            vocabularies = tuple(map(_filled, vocabularies, [max(map(len, vocabularies))] * 2))
            (directory / "target_vocab.json").write_text(json.dumps(vocabularies[1], ensure_ascii=False))
        else:
            joint = make_vocabulary([*languages, *source, *target], end_inside=end_inside)
            vocabularies = joint, joint
        (directory / "vocab.json").write_text(json.dumps(vocabularies[0], ensure_ascii=False))
        self.vocabularies = vocabularies
        padding, end = vocabularies[1]["<pad>"], vocabularies[1]["</s>"]
        self.config = transformers.MarianConfig(
            **{
                "vocab_size": len(vocabularies[0]),
                "decoder_vocab_size": len(vocabularies[1]),
                "d_model": D_MODEL,
                "encoder_layers": N,
                "decoder_layers": N,
                "encoder_attention_heads": H,
                "decoder_attention_heads": H,
                "encoder_ffn_dim": D_FF,
                "decoder_ffn_dim": D_FF,
                "activation_function": "swish",
                "scale_embedding": True,
                "static_position_embeddings": True,
                "share_encoder_decoder_embeddings": not is_separate,
                "max_position_embeddings": 97,
                "pad_token_id": padding,
                "decoder_start_token_id": padding,
                "eos_token_id": end,
                "forced_eos_token_id": end,
                "bos_token_id": 0,
                **options,
            }
        )
        self.model = self._random_model(transformers, padding, end, end_bias, is_half=is_half)
        self.tokenizer = transformers.MarianTokenizer(
            str(directory / "source.spm"),
            str(directory / "target.spm"),
            str(directory / "vocab.json"),
            target_vocab_file=str(directory / "target_vocab.json") if is_separate else None,
            source_lang="en",
            target_lang="de",
            separate_vocabs=is_separate,
        )
        self.tokenizer.save_pretrained(directory)

    def _random_model(self, transformers: Any, padding: int, end: int, end_bias: float, *, is_half: bool) -> Any:
        torch.manual_seed(3)
        model = transformers.MarianMTModel(self.config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "embed_positions" in name:
                    continue
                if weight.dim() == 2 and not any(part in name for part in ("embed", "shared", "lm_head")):
                    nn.init.xavier_uniform_(weight, gain=1.5)
                elif name.endswith("layer_norm.weight"):
                    weight.normal_(1.0, 0.1)
                elif weight.dim() == 1:
                    weight.normal_(0.0, 0.1)
                else:
                    weight.normal_(0.0, 1.5 * D_MODEL**-0.5)
                    weight[self.config.pad_token_id if "encoder" not in name else self.vocabularies[0]["<pad>"]] = 0
                if is_half:
                    weight.copy_(weight.half())
            model.final_logits_bias.normal_(0.0, 0.5)
            model.final_logits_bias[0, padding] = 0
            model.final_logits_bias[0, end] += end_bias
            if is_half:
                model.final_logits_bias.copy_(model.final_logits_bias.half())
        settings = {"num_beams": 3, "max_length": 97, "bad_words_ids": [[padding]], "decoder_start_token_id": padding}
        settings |= {"pad_token_id": padding, "eos_token_id": end, "forced_eos_token_id": end, "bos_token_id": 0}
        model.generation_config = transformers.GenerationConfig(**settings)
        saved = transformers.MarianMTModel(self.config)
        saved.load_state_dict(model.state_dict())
        saved.generation_config = model.generation_config
        (saved.half() if is_half else saved).save_pretrained(self.directory)
        return model


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a file; those that are "absent" are taken out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


def write_vocabulary(path: Path, vocabulary: dict[str, int]) -> None:
    """As Marian writes it: JSON text is YAML's double-quoted text."""
    path.write_text("".join(f"{json.dumps(piece, ensure_ascii=False)}: {id_}\n" for piece, id_ in vocabulary.items()))


def random_arrays(vocabularies: Sequence[int], *, num_layers: int = N, is_shared: bool = True) -> dict[str, Any]:
    """The arrays of a Marian model by its names, matrices as (in, out)."""
    rng = np.random.default_rng(3)

    def matrix(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) * (4 / (rows + columns)) ** 0.5).astype(np.float32)

    def vector(size: int, mean: float = 0.0) -> Any:
        return (mean + 0.1 * rng.standard_normal((1, size))).astype(np.float32)

    arrays: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        for number in range(1, num_layers + 1):
            layer = f"{stack}_l{number}"
            for attention in ("self", "context")[: 1 + (stack == "decoder")]:
                for x in "qkvo":
                    arrays[f"{layer}_{attention}_W{x}"] = matrix(D_MODEL, D_MODEL)
                    arrays[f"{layer}_{attention}_b{x}"] = vector(D_MODEL)
                arrays[f"{layer}_{attention}_Wo_ln_scale"] = vector(D_MODEL, 1.0)
                arrays[f"{layer}_{attention}_Wo_ln_bias"] = vector(D_MODEL)
            arrays |= {f"{layer}_ffn_W1": matrix(D_MODEL, D_FF), f"{layer}_ffn_b1": vector(D_FF)}
            arrays |= {f"{layer}_ffn_W2": matrix(D_FF, D_MODEL), f"{layer}_ffn_b2": vector(D_MODEL)}
            arrays |= {f"{layer}_ffn_ffn_ln_scale": vector(D_MODEL, 1.0), f"{layer}_ffn_ffn_ln_bias": vector(D_MODEL)}
    names = ["Wemb"] if is_shared else ["encoder_Wemb", "decoder_Wemb"]
    for name, size in zip(names, vocabularies, strict=False):
        arrays[name] = (rng.standard_normal((size, D_MODEL)) * 1.5 * D_MODEL**-0.5).astype(np.float32)
    arrays["decoder_ff_logit_out_b"] = (0.5 * rng.standard_normal((1, vocabularies[-1]))).astype(np.float32)
    return arrays


OPTIONS = {
    "type": "transformer",
    "enc-depth": N,
    "dec-depth": N,
    "transformer-heads": H,
    "transformer-dim-ffn": D_FF,
    "dim-emb": D_MODEL,
    "transformer-ffn-activation": "swish",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-no-projection": False,
    "transformer-guided-alignment-layer": "last",
    "transformer-tied-layers": [],
    "transformer-ffn-depth": 2,
    "tied-embeddings-all": True,
}


def write_release(
    directory: Path, models: tuple[bytes, bytes], arrays: dict[str, Any] | None = None, **options: Any
) -> Path:
    """The files of a release with a joint vocabulary."""
    directory.mkdir(parents=True)
    for side, content in zip(("source", "target"), models, strict=True):
        (directory / f"{side}.spm").write_bytes(content)
    joint = make_vocabulary([*pieces_of(models[0]), *pieces_of(models[1])])
    del joint["<pad>"]
    write_vocabulary(directory / "opus.spm32k-spm32k.vocab.yml", joint)
    arrays = random_arrays([len(joint)]) if arrays is None else arrays
    text = yaml.safe_dump(OPTIONS | options).encode() + b"\0"
    np.savez(directory / "opus.npz", **arrays, **{"special:model.yml": np.frombuffer(text, np.int8)})
    decoder = {
        "relative-paths": True,
        "models": ["opus.npz"],
        "vocabs": ["opus.spm32k-spm32k.vocab.yml"] * 2,
        "beam-size": 5,
        "normalize": 0.7,
        "word-penalty": 0,
    }
    (directory / "decoder.yml").write_text(yaml.safe_dump(decoder))
    (directory / "README.md").write_text("# opus.zip\n\n* source language(s): eng\n* target language(s): deu\n")
    return directory
