"""A model as two graphs, by torch.export or as ONNX: of the encoder, and of a decoding step with its cache.

Dimension key: N layers of the decoder, B sentences, S source and t target positions so far, H heads, V vocabulary.

    encoder  source (B, S) int64, padded with 0
             -> memory_keys (N, B, H, S, ·), memory_values, memory_mask (B, 1, 1, S) bool
    decoder  tokens (B,) int64, memory_keys, memory_values, memory_mask, past_keys (N, B, H, t, ·), past_values
             -> logits (B, V), past_keys (N, B, H, t + 1, ·), past_values

The first step has the token <s> and a past of no positions, t = 0. A beam search repeats the memory of a sentence for
each of its hypotheses, and reorders rows of the past.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transformer.data.tokenizer import EOS_ID, PAD_ID
from transformer.errors import ExportError
from transformer.interop.parts import check_padding
from transformer.model.attention import KeyValue
from transformer.model.transformer import DecoderState, Transformer

Graph = Callable[..., Sequence[Tensor]]


class EncoderGraph(nn.Module):
    """Reads source ids; returns what each layer of the decoder attends to."""

    outputs = ("memory_keys", "memory_values", "memory_mask")

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = self.model.encode(source)
        layers: Any = self.model.decoder.layers
        memory = [layer.cross_attention.project(state.memory) for layer in layers]
        assert state.memory_mask is not None
        return *_stacked(memory), state.memory_mask


class DecoderGraph(nn.Module):
    """Reads the last tokens; returns logits of the next ones, and the cache with one more position."""

    outputs = ("logits", "next_keys", "next_values")

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        memory_mask: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        memory = tuple(map(KeyValue, memory_keys.unbind(), memory_values.unbind()))
        past = tuple(map(KeyValue, past_keys.unbind(), past_values.unbind()))
        hidden, state = self.model.decode(tokens[:, None], DecoderState(memory, memory_mask, past))
        return self.model.logits(hidden[:, -1]), *_stacked(state.past)


def _stacked(entries: Sequence[KeyValue]) -> tuple[Tensor, Tensor]:
    """Keys and values of all layers: (N, B, H, M, ·) each."""
    return torch.stack([entry.keys for entry in entries]), torch.stack([entry.values for entry in entries])


# Names of the dimensions that may have any size.
_ENCODER_SHAPES = {"source": {0: "batch", 1: "source_length"}}
_MEMORY, _PAST = {1: "batch", 3: "source_length"}, {1: "batch", 3: "past_length"}
_DECODER_SHAPES: dict[str, dict[int, str]] = {
    "tokens": {0: "batch"},
    "memory_keys": _MEMORY,
    "memory_values": _MEMORY,
    "memory_mask": {0: "batch", 3: "source_length"},
    "past_keys": _PAST,
    "past_values": _PAST,
}


class Sizes(NamedTuple):
    """Of inputs: sentences, source and past positions."""

    batch: int
    source: int
    past: int


# None of them 1 or 0, which would become part of the graph.
_TRACED = Sizes(3, 7, 5)
# Below and above the lengths at which eager kernels and tables change, and the first step.
_CHECKED = (Sizes(2, 5, 0), Sizes(1, 30, 30), Sizes(3, 60, 59), Sizes(2, 400, 400), Sizes(1, 1, 1))
_TOLERANCE = 1e-4  # between kernels, relative to the largest number


def encoder_inputs(model: Transformer, sizes: Sizes) -> tuple[Tensor]:
    """Random source ids; if there are several sentences, the first is padded."""
    generator = torch.Generator().manual_seed(sizes.source)
    ids = torch.randint(EOS_ID + 1, len(model.embedding.weight), (sizes.batch, sizes.source), generator=generator)
    if sizes.batch > 1 and sizes.source > 2:
        ids[0, sizes.source // 2 :] = PAD_ID
    return (ids,)


def decoder_inputs(model: Transformer, sizes: Sizes) -> tuple[Tensor, ...]:
    """Random tokens and a random past, after `encoder_inputs`."""
    generator = torch.Generator().manual_seed(sizes.past)
    tokens = torch.randint(EOS_ID + 1, len(model.embedding.output_weight), (sizes.batch,), generator=generator)
    memory = EncoderGraph(model)(*encoder_inputs(model, sizes))
    past = [torch.randn((*x.shape[:3], sizes.past, x.size(4)), generator=generator, dtype=x.dtype) for x in memory[:2]]
    return tokens, *memory, *past


def checked_sizes(model: Transformer) -> list[Sizes]:
    """Sizes to compare a graph with the model at, as far as the model has positions."""
    limit = model.max_length or max(max(sizes) for sizes in _CHECKED) + 1
    return [Sizes(batch, min(source, limit), min(past, limit - 1)) for batch, source, past in _CHECKED]


def check_graphs(model: Transformer, encoder: Graph, decoder: Graph, title: str) -> None:
    """ExportError unless both graphs compute what the model does, at lengths other than those of the tracing."""
    for sizes in checked_sizes(model):
        for module, graph, inputs in (
            (EncoderGraph(model), encoder, encoder_inputs(model, sizes)),
            (DecoderGraph(model), decoder, decoder_inputs(model, sizes)),
        ):
            at = f"{title}, {type(module).__name__} at {sizes.source} source and {sizes.past} past positions"
            try:
                found = graph(*inputs)
            except Exception as error:  # of whatever runs it
                raise ExportError(f"{at} fails: {_reason(error)}") from None
            for name, ours, theirs in zip(module.outputs, module(*inputs), found, strict=True):
                difference = math.inf
                if ours.shape == theirs.shape:
                    difference = (ours.float() - theirs.float()).abs().max().item()
                if not difference <= _TOLERANCE * max(1.0, ours.float().abs().max().item()):
                    raise ExportError(f"{at} differs from the model: {name} by {difference:.1e}")


def write_torch(model: Transformer, directory: Path) -> None:
    """Write encoder.pt2 and decoder.pt2 for `torch.export.load`.

    ExportError if torch cannot export a part, or the graphs do not hold for all lengths.
    """
    title = "torch.export"
    check_padding(model, title)
    with torch.no_grad():
        programs = [
            _exported(module, inputs, shapes, title)
            for module, inputs, shapes in (
                (EncoderGraph(model), encoder_inputs(model, _TRACED), _ENCODER_SHAPES),
                (DecoderGraph(model), decoder_inputs(model, _TRACED), _DECODER_SHAPES),
            )
        ]
        encoder, decoder = (program.module() for program in programs)
        check_graphs(model, encoder, decoder, title)
    for name, program in zip(("encoder", "decoder"), programs, strict=True):
        torch.export.save(program, directory / f"{name}.pt2")


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], shapes: dict[str, dict[int, str]], title: str) -> Any:
    any_size = torch.export.Dim.DYNAMIC
    dynamic = {name: dict.fromkeys(axes, any_size) for name, axes in shapes.items()}
    with _refusing(title), _quiet():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)


def write_onnx(model: Transformer, directory: Path) -> None:
    """Write encoder.onnx and decoder.onnx; compare them with the model if onnxruntime is installed.

    ExportError if packages are missing, or as of `write_torch`.
    """
    title = "ONNX"
    check_padding(model, title)
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{title} needs the package {error.name}: pip install 'attention-is-all-you-need[onnx]'"
        ) from None
    with torch.no_grad():
        for name, module, inputs, shapes in (
            ("encoder", EncoderGraph(model), encoder_inputs(model, _TRACED), _ENCODER_SHAPES),
            ("decoder", DecoderGraph(model), decoder_inputs(model, _TRACED), _DECODER_SHAPES),
        ):
            options: dict[str, Any] = {"input_names": [*shapes], "output_names": [*module.outputs], "verbose": False}
            with _refusing(title), _quiet():
                program: Any = torch.onnx.export(module.eval(), inputs, dynamo=True, dynamic_shapes=shapes, **options)
                program.save(directory / f"{name}.onnx")
        if runtime := _onnx_runtime():
            encoder, decoder = (_session(runtime, directory / f"{name}.onnx") for name in ("encoder", "decoder"))
            check_graphs(model, encoder, decoder, title)


def _onnx_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


def _session(runtime: Any, path: Path) -> Graph:
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(x) for x in session.run(None, feeds)]

    return run


@contextlib.contextmanager
def _refusing(title: str) -> Iterator[None]:
    """ExportError for whatever a library raises that cannot hold a model."""
    try:
        yield
    except Exception as error:  # undocumented ones
        raise ExportError(f"{title} has no place for this model: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' warnings, which speak of their own insides, and of packages that nothing here needs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
