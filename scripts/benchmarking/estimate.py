"""Training time on GPUs, estimated from counted operations and bytes (a roofline)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarking.flops import Work, forward_flops, weight_products
from benchmarking.report import Report
from transformer.config import Config
from transformer.model.alternatives.build import build_model

# Per parameter: master weight, both moments of Adam read and written in float32, the gradient read and written, the
# bfloat16 copy written.
_OPTIMIZER_BYTES = 3 * 2 * 4 + 2 * 4 + 2
# Per logit of the blockwise loss: written and twice read in bfloat16, probabilities written, read, read and written,
# and read in float32, their gradient written and twice read in bfloat16.
_LOGIT_BYTES = 3 * 2 + 5 * 4 + 3 * 2
# Dropout (read, mask, write), sum (two read, one written) and norm (read, write) of a sub-layer's output, in bfloat16.
_RESIDUAL_BYTES = 8 * 2


@dataclass(frozen=True)
class Hardware:
    """One GPU by its data sheet, and the efficiency that programs reach.

    Args:
        flops: dense bfloat16 operations per second.
        bytes_per_s: memory bandwidth.
        link_bytes_per_s: bandwidth to the other GPUs, in one direction.
        efficiency: fraction of `flops` that matrix products reach; of bandwidths, three quarters are assumed.
    """

    flops: float
    bytes_per_s: float
    link_bytes_per_s: float
    efficiency: float


def estimate(config: Config, hardware: Hardware, *, gpus: int, vocab_size: int, sentence_length: int) -> Report:
    """Time of an update and of training in bfloat16, assuming no overlap and no waiting for the host.

    Args:
        config: the run; an update has `train.tokens_per_update` tokens of either language.
        hardware: each of the GPUs.
        gpus: number of GPUs that share an update.
        vocab_size: size of the vocabulary.
        sentence_length: tokens per sentence, for the operations of attention.
    """
    model, train = config.model, config.train
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in build_model(vocab_size, config.model).parameters())
    tokens = train.tokens_per_update / gpus
    pairs = round(tokens * sentence_length)
    work = Work(round(tokens / sentence_length), round(tokens), round(tokens), pairs, pairs, pairs)
    flops = 3 * forward_flops(model, vocab_size, work)
    *products, _ = weight_products(model, vocab_size)
    # Inputs and outputs of every product, in bfloat16; then the residual connections of all sub-layers.
    per_token = sum((p.per_source + p.per_target) * (p.inputs + p.outputs) * 2 for p in products)
    per_token += model.num_layers * (2 + 3) * model.d_model * _RESIDUAL_BYTES
    # A backward pass touches about twice what its forward pass does.
    activations = 3 * per_token * tokens
    logits = _LOGIT_BYTES * vocab_size * tokens
    optimizer = _OPTIMIZER_BYTES * num_parameters
    exchanged = 2 * 4 * num_parameters * (gpus - 1) / gpus  # float32 gradients around a ring
    bandwidth = 0.75 * hardware.bytes_per_s
    milliseconds = {
        "matrix products": 1e3 * flops / (hardware.efficiency * hardware.flops),
        "activations": 1e3 * activations / bandwidth,
        "logits": 1e3 * logits / bandwidth,
        "optimizer": 1e3 * optimizer / bandwidth,
        "gradient exchange": 1e3 * exchanged / (0.75 * hardware.link_bytes_per_s),
    }
    update_s = sum(milliseconds.values()) / 1e3
    return {
        "parameters": num_parameters,
        "gpus": gpus,
        "tflop_per_update": gpus * flops / 1e12,
        "gb_per_update_and_gpu": (activations + logits + optimizer) / 1e9,
        "ms": milliseconds,
        "update_ms": 1e3 * update_s,
        "tokens_per_s": train.tokens_per_update / update_s,
        "share_of_peak": flops / update_s / hardware.flops,
        "hours": train.max_steps * update_s / 3600,
    }
