"""Graphs of encoder and decoder, exported once, hold for all lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interop_models import TEXTS, Make, Save, output_of, programs, source_ids
from torch import Tensor

from transformer.data.tokenizer import Tokenizer
from transformer.errors import ExportError
from transformer.inference.translator import Translator
from transformer.interop import graphs
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.graphs import (
    DecoderGraph,
    EncoderGraph,
    Sizes,
    check_graphs,
    checked_sizes,
    decoder_inputs,
    write_onnx,
    write_torch,
)
from transformer.model.transformer import Transformer

# Of source and past: below and above the lengths at which eager kernels change, and the first step.
LENGTHS = [(5, 0), (30, 1), (60, 30), (400, 60), (7, 400)]
FEW = {"num_layers": 1, "num_decoder_layers": 2, "search": {"max_length_offset": 90}}  # so that tracing is fast
Run = Callable[..., list[Tensor]]


def greedy(encoder: Run, decoder: Run, source: Tensor, num_steps: int) -> list[list[int]]:
    """The most probable token at each step, for all rows."""
    memory = encoder(source)
    past = [x.new_zeros(*x.shape[:3], 0, x.size(4)) for x in memory[:2]]
    tokens, found = torch.full((source.size(0),), 2), []
    for _ in range(num_steps):
        logits, *past = decoder(tokens, *memory, *past)
        tokens = logits.argmax(dim=-1)
        found.append(tokens.tolist())
    return found


def test_the_two_parts_decode_what_the_model_does(make: Make) -> None:
    exported = make(attention_bias=True)
    model, source = exported.model, source_ids(exported)
    with torch.no_grad():
        found = greedy(EncoderGraph(model), DecoderGraph(model), source, 9)
        target = torch.full((len(TEXTS), 1), 2)
        for _ in range(9):
            next_tokens = model(source, target)[:, -1].argmax(dim=-1)
            target = torch.cat((target, next_tokens[:, None]), dim=1)
    assert target[:, 1:].T.tolist() == found


def check(model: Transformer, encoder: Run, decoder: Run, atol: float = 1e-5) -> None:
    """Compare at all lengths; every length has a number of sentences of its own."""
    for batch, (source, past) in enumerate(LENGTHS, start=1):
        sizes = Sizes(batch, source, past)
        for module, graph, inputs in (
            (EncoderGraph(model), encoder, graphs.encoder_inputs(model, sizes)),
            (DecoderGraph(model), decoder, decoder_inputs(model, sizes)),
        ):
            for ours, theirs in zip(module(*inputs), graph(*inputs), strict=True):
                torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "pre", "num_kv_heads": 1, "activation": "swish", "positional": "rotary", "d_k": 12, "tie": "decoder"},
    ],
)
def test_torch_export_holds_for_all_lengths(
    make: Make, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    exported = make(**FEW, **options)
    monkeypatch.chdir(tmp_path)
    export(exported, "torch", Path("model"))
    encoder, decoder = (torch.export.load(f"model/{name}.pt2").module() for name in ("encoder", "decoder"))
    with torch.no_grad():
        check(exported.model, encoder, decoder)
    check_card(save(exported))


@pytest.mark.slow
def test_onnx_holds_for_all_lengths(
    make: Make,
    save: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other_tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    exported = make(**FEW, attention_bias=True, tie="decoder", source=other_tokenizer)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("WARNING"):
        export(exported, "onnx", Path("model"))
    assert caplog.messages == [], "nothing of packages that are not needed"
    encoder, decoder = (graphs._session(runtime, Path(f"model/{name}.onnx")) for name in ("encoder", "decoder"))
    with torch.no_grad():
        check(exported.model, encoder, decoder)  # type: ignore[arg-type]
    check_card(save(exported))


def check_card(checkpoint: Path) -> None:
    """The program of the card prints a greedy translation."""
    (program,) = programs(Path("model/README.md"))
    ours = Translator.load(checkpoint, precision="fp32").translate([TEXTS[1]], beam=1)[0]
    assert output_of(program.replace('"..."', f'"{TEXTS[1]}"'))[:9] == ours[:9], "until the limits of either"


def test_onnx_says_which_extra_it_needs(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(
        ExportError, match=r"^ONNX needs the package onnx: pip install 'attention-is-all-you-need\[onnx\]'$"
    ):
        export(make(), "onnx", tmp_path / "onnx")


# The check that every export passes


@pytest.mark.parametrize("write", [write_torch, write_onnx])
def test_another_padding_than_that_of_the_tokenizers_is_refused(tmp_path: Path, write: Callable[..., None]) -> None:
    with pytest.raises(ExportError, match=r"has no place for pad_id=3: batches are filled up with 0$"):
        write(Transformer(11, 6, 1, 2, 7, pad_id=3), tmp_path)


def test_graphs_that_compute_something_else_are_refused(make: Make) -> None:
    model = make().model

    def wrong(*inputs: Tensor) -> list[Tensor]:
        logits, *past = DecoderGraph(model)(*inputs)
        return [logits + 0.1 * (inputs[-1].size(3) > 20), *past]  # a graph that was specialised to short pasts

    with (
        torch.no_grad(),
        pytest.raises(
            ExportError,
            match=r"^x, DecoderGraph at 30 source and 30 past positions differs from the model: logits by 1\.0e-01$",
        ),
    ):
        check_graphs(model, EncoderGraph(model), wrong, "x")


def test_graphs_that_fail_at_a_length_are_refused(make: Make) -> None:
    model = make().model

    def wrong(source: Tensor) -> list[Tensor]:
        if source.size(1) > 47:
            raise RuntimeError("a guard\nof several lines")
        return [*EncoderGraph(model)(source)]

    with (
        torch.no_grad(),
        pytest.raises(
            ExportError, match=r"^x, EncoderGraph at 60 source and 59 past positions fails: RuntimeError: a guard$"
        ),
    ):
        check_graphs(model, wrong, DecoderGraph(model), "x")


def test_a_model_with_few_positions_is_checked_within_them(make: Make) -> None:
    exported: Exported = make(positional="learned", max_positions=257)
    sizes = checked_sizes(exported.model)
    assert max(size.source for size in sizes) == 257
    assert max(size.past for size in sizes) == 256
    with torch.no_grad():
        check_graphs(exported.model, EncoderGraph(exported.model), DecoderGraph(exported.model), "x")


def test_what_torch_cannot_export_is_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(ExportError, match=r"^torch.export has no place for this model: RuntimeError: data-dependent$"):
        export(make(), "torch", tmp_path / "torch")
    assert list(tmp_path.iterdir()) == []
