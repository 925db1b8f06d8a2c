"""One of two processes that train together by gloo: `distributed_worker.py RANK DIRECTORY`, called by the test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.attention import MultiHeadAttention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Transformer


def make(**options: object) -> Transformer:
    torch.manual_seed(0)
    sizes = {"d_model": 22, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2, "d_ff": 34, "dropout": 0.0}
    return build_model(53, ModelConfig(**{**sizes, **options}))  # type: ignore[arg-type]


def layers(model: Transformer) -> list[Layer]:
    return [*model.encoder.layers, *model.decoder.layers]


def batches(length: int = 7) -> list[tuple[Tensor, Tensor]]:
    """Of both processes."""
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(1, 53, (2, n), generator=generator) for n in (length, 5)) for _ in range(2)]  # type: ignore


def loss(model: nn.Module, src: Tensor, tgt: Tensor) -> Tensor:
    return model(src, tgt).logsumexp(-1).sum()


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_gradients(model: nn.Module, expected: nn.Module) -> None:
    """Those of `model` are the mean over the processes."""
    for pair in batches():
        (loss(expected, *pair) / 2).backward()
    for (name, a), b in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert a.grad is not None, name
        assert_close(whole(a.grad), b.grad, msg=lambda text, name=name: f"{name}: {text}")


def ddp(rank: int) -> None:
    """Default arguments: buffers, if there were any, would be broadcast."""
    model = DistributedDataParallel(make())
    for length in (7, 300 if rank == 0 else 7, 7):  # one process alone goes past 256 positions
        model.zero_grad()
        loss(model, *batches(length)[rank]).backward()
    check_gradients(model, make())


def fsdp(rank: int, **options: object) -> None:
    """The documented recipe: every layer, then the rest."""
    model = make(**options)
    for layer in layers(model):
        fully_shard(layer)
    fully_shard(model)
    loss(model, *batches()[rank]).backward()
    check_gradients(model, make(**options))


def fsdp_alternatives(rank: int) -> None:
    """Among them a bias that the layers of a stack share."""
    fsdp(rank, positional="t5", norm="pre", num_kv_heads=1)


def fsdp_meta(rank: int) -> None:
    """Sharded before it is filled, then loaded or initialised."""
    expected = make()
    with torch.device("meta"):
        model = make()
    for layer in layers(model):
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cpu")
    model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    assert all(whole(parameter).isfinite().all() for parameter in model.parameters())
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, expected.state_dict(), options=options)
    src, tgt = batches()[rank]
    assert_close(model(src, tgt), expected(src, tgt))


def fsdp_decoding(rank: int) -> None:
    """Other methods than forward are registered."""
    model, expected = make().eval(), make().eval()
    for layer in layers(model):
        fully_shard(layer)
    fully_shard(model)
    for name in ("encode", "decode", "logits"):
        register_fsdp_forward_method(model, name)
    src, tgt = batches()[rank]
    with torch.no_grad():
        state, expected_state = model.encode(src), expected.encode(src)
        for column in tgt.T[..., None]:
            hidden, state = model.decode(column, state)
            expected_hidden, expected_state = expected.decode(column, expected_state)
            assert_close(model.logits(hidden), expected.logits(expected_hidden))


def tensor_parallel(_: int) -> None:
    """Half of the heads and half of d_ff in each process; both have the same batch."""
    model, mesh = make(), init_device_mesh("cpu", (2,))
    columns, rows = ColwiseParallel(), RowwiseParallel()
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            parallelize_module(module, mesh, {"w_q": columns, "w_k": columns, "w_v": columns, "w_o": rows})
        elif isinstance(module, FeedForward):
            parallelize_module(module, mesh, {"w_1": columns, "w_2": rows})
    expected, pair = make(), batches()[0]
    for each in (model, expected):
        loss(each, *pair).backward()
    for (name, a), b in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert_close(whole(a.grad), b.grad, msg=lambda text, name=name: f"{name}: {text}")
    assert_close(model(*pair), expected(*pair))


CHECKS: dict[str, Callable[[int], None]] = {
    "ddp_past_256_positions_on_one_rank": ddp,
    "fsdp_by_layer": fsdp,
    "fsdp_of_alternatives": fsdp_alternatives,
    "fsdp_from_meta": fsdp_meta,
    "fsdp_decoding": fsdp_decoding,
    "tensor_parallel": tensor_parallel,
}


def main(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{directory}/store", rank=rank, world_size=2)
    for name, check in CHECKS.items():  # a failure ends the process, and thus the other one
        check(rank)
        dist.barrier()
        (directory / f"{name}.{rank}").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
