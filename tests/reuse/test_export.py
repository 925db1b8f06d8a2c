"""torch.export: one graph for every length, of the whole model and of its parts."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.testing import assert_close

from transformer.model.attention import KeyValue, padding_mask
from transformer.model.transformer import DecoderState, Transformer

pytestmark = pytest.mark.slow

B, S, T, PAST = Dim("B", min=1, max=64), Dim("S", min=2, max=512), Dim("T", min=2, max=512), Dim("past", min=2, max=600)
# Below and above the lengths at which kernels and tables change: 16, 48, 256, 320.
LENGTHS = [(2, 3), (5, 7), (30, 47), (60, 200), (300, 17), (500, 400)]


class Method(nn.Module):
    """A method as the `forward` that torch.export wants."""

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *args: Any) -> Any:
        return getattr(self.model, self.name)(*args)


def saved_and_loaded(program: ExportedProgram) -> nn.Module:
    torch.export.save(program, file := io.BytesIO())
    file.seek(0)
    with torch.serialization.safe_globals([DecoderState, KeyValue]):
        return torch.export.load(file).module()


EXPORTED = [
    "paper",
    "d_k",
    "pre_norm",
    "grouped_query",
    "learned",
    "rotary",
    "shaw",
    "t5",
    "alibi",
    "general",
    "additive",
]
EXPORTED += ["cosine", "location", "window_t5"]


@pytest.mark.parametrize("variant", EXPORTED)
def test_one_graph_of_the_model_holds_for_all_lengths(variant, build, ids) -> None:
    model = build(variant, num_decoder_layers=1, max_positions=513).eval()
    shapes = ({0: B, 1: S}, {0: B, 1: T})
    program = export(model, (ids(3, 20), ids(3, 12)), dynamic_shapes=shapes).module()
    for i, (num_source, num_target) in enumerate(LENGTHS):
        src, tgt = ids(1 + i % 4, num_source), ids(1 + i % 4, num_target)
        src[0, 1:] = 0
        assert_close(program(src, tgt), model(src, tgt))
    src[0] = 0  # a sentence of padding alone
    assert_close(program(src, tgt), model(src, tgt))


def test_one_graph_of_multi_head_attention_holds_for_all_lengths(build) -> None:
    attention = build().encoder.layers[0].self_attention
    x, shapes = torch.randn(3, 20, 22), {"x": {0: B, 1: S}, "mask": {0: B, 3: S}}
    mask = torch.rand(3, 1, 1, 20) > 0.3
    program = export(attention, (x,), {"mask": mask}, dynamic_shapes=shapes).module()
    for length in (2, 15, 16, 47, 48, 257, 321, 512):
        x, mask = torch.randn(2, length, 22), torch.rand(2, 1, 1, length) > 0.3
        assert_close(program(x, mask=mask), attention(x, mask=mask))


def test_one_graph_of_the_encoder_holds_for_all_lengths(build, ids) -> None:
    encoder = build("pre_norm").encoder.eval()
    shapes = ({0: B, 1: S}, {0: B, 3: S})
    program = export(encoder, (torch.randn(3, 20, 22), padding_mask(ids(3, 20))), dynamic_shapes=shapes).module()
    for num_source, _ in LENGTHS:
        x, mask = torch.randn(2, num_source, 22), torch.rand(2, 1, 1, num_source) > 0.3
        assert_close(program(x, mask), encoder(x, mask))


@pytest.mark.parametrize("variant", ["paper", "rotary", "t5"])
def test_encode_and_a_decoding_step_are_exported_with_their_state(variant, build, ids) -> None:
    model = build(variant).eval()
    encode = saved_and_loaded(
        export(Method(model, "encode"), (ids(3, 20),), dynamic_shapes={"args": (({0: B, 1: S}),)})
    )
    _, state = model.decode(ids(3, 12), model.encode(ids(3, 20)))  # memory and past are keys and values
    new, shapes = ids(3, 1), ShapesCollection()
    shapes[new], shapes[state.memory_mask] = {0: B}, {0: B, 3: S}
    for entries, length in ((state.memory, S), (state.past, PAST)):
        for tensor in (tensor for entry in entries for tensor in entry):
            shapes[tensor] = {0: B, 2: length}
    step = saved_and_loaded(export(Method(model, "decode"), (new, state), dynamic_shapes=shapes))
    for num_source, num_target in LENGTHS:
        src, tgt, new = ids(5, num_source), ids(5, num_target), ids(5, 1)
        state = encode(src)
        assert isinstance(state, DecoderState)
        assert_close(state.memory, model.encode(src).memory)
        _, state = model.decode(tgt, state)
        hidden, after = step(new, state)
        assert_close(hidden, model.decode(new, state)[0])
        assert after.length == num_target + 1


def test_onnx_holds_for_all_lengths(build, ids) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = build(num_decoder_layers=1).eval()
    shapes = ({0: B, 1: S}, {0: B, 1: T})
    program: Any = torch.onnx.export(model, (ids(3, 20), ids(3, 12)), dynamo=True, dynamic_shapes=shapes)
    for num_source, num_target in LENGTHS:
        src, tgt = ids(2, num_source), ids(2, num_target)
        logits: Tensor = program(src, tgt)[0]
        assert_close(logits, model(src, tgt), rtol=1e-4, atol=1e-4)
