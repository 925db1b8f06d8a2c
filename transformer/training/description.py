"""Whether a configuration describes a model: names, shapes and options, without memory."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer

# Pieces of the target, and of the source if it has a vocabulary of its own.
Sizes = tuple[int, int | None]


class _SkipInit(TorchFunctionMode):
    """Leaves out in-place functions: they give values, and on the meta device take a second of imports."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if re.fullmatch(r"[a-z]\w*[a-z0-9]_", func.__name__) and func.__name__ != "requires_grad_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def outline(sizes: Sizes, config: ModelConfig) -> Transformer:
    """A model of names and shapes, without memory."""
    with torch.device("meta"), _SkipInit():
        return build_model(sizes[0], config, source_vocab_size=sizes[1])


def check_described(model: Transformer, sizes: Sizes, config: ModelConfig) -> None:
    """ValueError unless a configuration says what a model computes with its weights, and these are numbers."""
    if _description(model) != _description(outline(sizes, config)):
        raise ValueError("the configuration does not describe the model: a part, a size or an option differs")
    owners: dict[int, str] = {}
    for name, weight in model.state_dict().items():
        if weight.is_meta:
            raise ValueError(f"{name} has no values: the model is on the device meta")
        if not weight.isfinite().all():
            raise ValueError(f"{name} contains non-finite values, and would not be loaded")
        if type(weight) is not Tensor or not weight.numel():  # such as one that is distributed over processes
            continue
        if (owner := owners.setdefault(weight.data_ptr(), name)) != name:
            raise ValueError(f"{owner} and {name} share their memory, and the configuration has a weight for each")


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of weights; none of a quantised one, which is no tensor."""
    return {name: tuple(x.shape) for name, x in model.state_dict().items() if isinstance(x, Tensor)}


def _description(model: Transformer) -> tuple[Any, ...]:
    """Everything but weights: modules with their sizes, shapes of weights, padding, activations."""
    activations = [getattr(module, "activation", None) for module in model.modules()]
    return repr(model), shapes_of(model), model.pad_id, activations
