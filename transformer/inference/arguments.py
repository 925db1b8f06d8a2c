"""Arguments as programs pass them, checked before the work."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from transformer.data.tokenizer import PAD_ID, Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, DeviceError
from transformer.files import expand_home
from transformer.model.transformer import Transformer
from transformer.training.device import resolve_device

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16", "int8")


def text_list(texts: Iterable[str], name: str = "texts", *, first_number: int = 1) -> list[str]:
    """The texts as a list; TypeError for anything else.

    A string is iterable too, and its characters would be taken for texts.

    Args:
        name: of the argument, for messages.
        first_number: the number of the first text, for messages.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"{name} must be a list of sentences, not one string")
    listed = list(texts)
    for number, text in enumerate(listed, start=first_number):
        if not isinstance(text, str):
            raise TypeError(f"{name}: sentence {number} is {text!r}, not text")
    return listed


def check_count(name: str, value: int, most: float = math.inf, of: str = "") -> None:
    """ConfigError unless an argument is a whole number from 1 to `most`, the value of the one called `of`."""
    if not isinstance(value, numbers.Integral) or not 1 <= value <= most:
        limits = "of at least 1" if most == math.inf else f"between 1 and {of}={most}"
        raise ConfigError(f"{name}={value!r} must be a whole number {limits}")


def check_fit(model: Transformer, tokenizer: Tokenizer) -> None:
    """DataError if model and tokenizer have different numbers of pieces, of source or target, or another padding."""
    if model.pad_id != PAD_ID:  # it would attend to the padding of a batch
        raise DataError(f"the model's pad_id is {model.pad_id}, and tokenizers fill up batches with {PAD_ID}")
    output_weight, source = model.embedding.output_weight, tokenizer.source
    if len(tokenizer) != len(output_weight):
        raise DataError(
            f"the tokenizer has {len(tokenizer)} pieces, and the model {len(output_weight)}: "
            "take the tokenizer that the model was trained with"
        )
    if len(source) != len(model.embedding.weight):
        raise DataError(
            f"the tokenizer of the source has {len(source)} pieces, and the model {len(model.embedding.weight)}: "
            "take the tokenizers that the model was trained with"
        )


def check_precision(precision: str) -> None:
    """DeviceError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise DeviceError(f"precision={precision!r} is not one of {', '.join(PRECISIONS)}")


def device_of(name: str | torch.device) -> torch.device:
    """As `resolve_device`; DeviceError also for a kind that is not supported, and for a number that does not exist."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(name)):
        raise DeviceError(f"device={name} is not one of auto, cpu, cuda and mps")
    device = resolve_device(str(name))
    if device.index is not None and device.index >= (number := torch.cuda.device_count()):
        raise DeviceError(f"device={name}: torch {torch.__version__} sees {number} of them, counted from 0")
    return device


def path_of(path: str | Path) -> str:
    """The path or hub id, a leading `~` replaced by the home directory; CheckpointError if that is not known."""
    try:
        return expand_home(str(path))
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from None
