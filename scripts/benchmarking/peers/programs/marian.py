"""Training and decoding with Hugging Face's MarianMTModel."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from benchmarking.peers.programs.loop import BOS, EOS, PAD, decode, padded, read_ids, the_task, train


def build(sizes: SimpleNamespace) -> MarianMTModel:
    """A model with random weights."""
    return MarianMTModel(
        MarianConfig(
            vocab_size=sizes.vocab_size,
            d_model=sizes.d_model,
            encoder_layers=sizes.num_layers,
            decoder_layers=sizes.num_layers,
            encoder_attention_heads=sizes.num_heads,
            decoder_attention_heads=sizes.num_heads,
            encoder_ffn_dim=sizes.d_ff,
            decoder_ffn_dim=sizes.d_ff,
            dropout=sizes.dropout,
            attention_dropout=sizes.dropout,
            activation_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            max_position_embeddings=512,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            decoder_start_token_id=BOS,
            forced_eos_token_id=None,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
        )
    )


def translate_all(task: SimpleNamespace, model: Any) -> None:
    """Decode with a forced length."""
    generation = GenerationConfig(
        num_beams=task.beam,
        do_sample=False,
        min_new_tokens=task.length,
        max_new_tokens=task.length,
        length_penalty=0.6 if task.beam > 1 else 1.0,
        early_stopping=False,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        bad_words_ids=None,
    )

    @torch.inference_mode()
    def translate(batch: Sequence[Sequence[int]]) -> int:
        src = padded(batch)
        found = model.generate(input_ids=src, attention_mask=(src != PAD).long(), generation_config=generation)
        return found[:, 1:].numel()  # without <s>

    model.eval()
    decode(task, read_ids(task.data, "test.src"), translate)


def main() -> None:
    task = the_task()
    model = build(task.sizes)
    if task.what == "train":
        train(
            task,
            model,
            lambda src, tgt_in: (
                model(
                    input_ids=src, attention_mask=(src != PAD).long(), decoder_input_ids=tgt_in, use_cache=False
                ).logits
            ),
        )
    else:
        translate_all(task, model)


if __name__ == "__main__":
    main()
