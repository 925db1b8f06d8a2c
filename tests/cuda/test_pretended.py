"""The pretended CUDA device does what a CUDA device does, as far as it can."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from pretended import CUDA, PretendedCuda
from torch import Tensor, nn

B, H, Q, M, D = 2, 3, 5, 7, 8


@pytest.fixture
def cuda() -> Iterator[PretendedCuda]:
    with PretendedCuda() as device:
        yield device


def on_device(x: Tensor) -> Tensor:
    return x.pin_memory().to("cuda", non_blocking=True)


def test_outside_of_it_torch_is_as_before() -> None:
    was_available = torch.cuda.is_available()
    with PretendedCuda() as device:
        assert torch.cuda.is_available()
        x = torch.zeros(3, device="cuda")
    assert torch.cuda.is_available() == was_available and PretendedCuda.current is None
    assert not device.waits
    with pytest.raises(RuntimeError, match="that is gone"):
        x + 1


@pytest.mark.usefixtures("cuda")
def test_tensors_say_that_they_are_on_the_device_and_have_values() -> None:
    x = torch.arange(6, device="cuda").view(2, 3)[:, 1:] * 2.5
    assert x.device == CUDA and x.is_cuda and not x.is_cpu and x.dtype == torch.float32
    assert x.tolist() == [[2.5, 5.0], [10.0, 12.5]] and not x.cpu().is_cuda
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        x.numpy()


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: x @ y,
        lambda x, y: torch.cat((x, y)),
        lambda x, y: x[0].new_zeros(()) + y,
        lambda x, y: F.embedding(y.long(), x),
        lambda x, y: torch.cat((x.flatten(), y.sum()[None])),
    ],
)
@pytest.mark.usefixtures("cuda")
def test_tensors_of_two_devices_are_refused(operation: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(RuntimeError, match="same device, but found cuda:0 and cpu"):
        operation(torch.ones(3, 3, device="cuda"), torch.ones(3, 3))


def test_a_number_of_the_host_is_taken(cuda: PretendedCuda) -> None:
    x = torch.ones(3, device="cuda") * torch.tensor(2.0)
    assert not cuda.waits
    assert x.tolist() == [2.0] * 3


@pytest.mark.parametrize(
    "operation",
    [
        Tensor.item,
        bool,
        Tensor.cpu,
        Tensor.nonzero,
        lambda x: x.expand(3).tolist(),
        lambda x: x.expand(3)[x.expand(3) > 0],
        lambda x: x.new_tensor(5),
        lambda x: torch.tensor([1], device=x.device),
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: x.expand(3)[[0, 2]],
        lambda x: torch.cuda.synchronize(x.device),
        lambda x: torch.ones(3).pin_memory().to(x.device),
        lambda x: torch.ones(3).copy_(x, non_blocking=True),
        lambda x: torch.multinomial(x.expand(3), 1),
    ],
)
def test_waits_are_recorded_with_their_place(cuda: PretendedCuda, operation: Callable[[Tensor], object]) -> None:
    x = torch.ones((), device="cuda")
    operation(x)
    (wait,) = cuda.waits
    assert " at test_pretended.py:" in wait


def test_what_need_not_wait_does_not(cuda: PretendedCuda) -> None:
    x = on_device(torch.ones(3))
    x[x > 0] = 2.0
    torch.where(x > 0, x, 0.0)
    x.new_full((), 5)
    x[torch.zeros(2, dtype=torch.int64, device="cuda")]
    torch.cuda.current_stream().wait_stream(torch.cuda.Stream())
    assert not cuda.waits


def test_values_copied_without_waiting_arrive_when_the_host_waits(cuda: PretendedCuda) -> None:
    first, second = (torch.empty(2, pin_memory=True) for _ in range(2))
    first.copy_(torch.ones(2, device="cuda"), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    second.copy_(torch.ones(2, device="cuda"), non_blocking=True)
    third = torch.ones(2, device="cuda").to("cpu", non_blocking=True)
    assert not cuda.waits and first.isnan().all()
    event.synchronize()
    assert first.tolist() == [1.0, 1.0] and second.isnan().all() and third.isnan().all()
    torch.cuda.synchronize()
    assert second.tolist() == third.tolist() == [1.0, 1.0]
    assert [wait.split(" at ")[0] for wait in cuda.waits] == ["Event.synchronize", "synchronize"]


@pytest.mark.usefixtures("cuda")
def test_it_has_random_numbers_of_its_own() -> None:
    torch.manual_seed(5)
    of_host, state = torch.get_rng_state(), torch.cuda.get_rng_state()
    x = F.dropout(torch.ones(101, device="cuda"), 0.5)
    assert torch.equal(torch.get_rng_state(), of_host)
    torch.cuda.set_rng_state(state)
    assert torch.equal(F.dropout(torch.ones(101, device="cuda"), 0.5).cpu(), x.cpu())
    assert set(x.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("capability", "dtype", "d", "mask", "expected"),
    [
        ((9, 0), torch.bfloat16, 8, True, "cudnn"),
        ((8, 0), torch.bfloat16, 8, True, "efficient"),
        ((8, 0), torch.bfloat16, 8, False, "flash"),
        ((9, 0), torch.float32, 8, False, "efficient"),
        ((8, 0), torch.bfloat16, 7, True, "math"),
        ((7, 5), torch.bfloat16, 8, False, "math"),
        ((7, 5), torch.float16, 8, False, "efficient"),
        ((7, 5), torch.float32, 7, False, "efficient"),
    ],
)
def test_attention_takes_the_kernel_that_torch_takes(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, d: int, mask: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: True)  # though runs on CUDA turn it off
    with PretendedCuda(capability=capability) as cuda:
        q, k = (torch.ones(B, H, length, d, dtype=dtype, device="cuda") for length in (Q, M))
        F.scaled_dot_product_attention(q, k, k, torch.ones(Q, M, dtype=torch.bool, device="cuda") if mask else None)
        assert cuda.attention == {expected: 1}


def attention_and_gradients(q: Tensor, k: Tensor, v: Tensor, **options: object) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = F.scaled_dot_product_attention(*inputs, **options)
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape))
    return [x.detach().float().cpu() for x in (out, *(x.grad for x in inputs))]


@pytest.mark.parametrize("kernel", ["efficient", "flash", "math"])
def test_its_attention_is_equation_1_and_so_are_the_gradients(kernel: str) -> None:
    torch.manual_seed(2)
    d = 7 if kernel == "math" else D
    dtype = torch.bfloat16 if kernel == "flash" else torch.float32
    inputs = [torch.randn(B, H, length, d).to(dtype) for length in (Q, M, M)]
    mask = None if kernel == "flash" else torch.rand(B, 1, Q, M) > 0.3
    expected = attention_and_gradients(*(x.float() for x in inputs), attn_mask=mask)
    with PretendedCuda(capability=(8, 0)) as cuda:
        found = attention_and_gradients(*map(on_device, inputs), attn_mask=None if mask is None else on_device(mask))
        assert cuda.attention == {kernel: 1}
    torch.testing.assert_close(found, expected, atol=2e-6 if dtype == torch.float32 else 2e-2, rtol=1e-2)


@pytest.mark.usefixtures("cuda")
def test_dropout_of_attention_weights_is_the_same_in_the_backward_pass() -> None:
    q, k = torch.zeros(1, 1, 1, D, device="cuda"), torch.zeros(1, 1, 101, D, device="cuda")
    v = torch.zeros(1, 1, 101, D, device="cuda", requires_grad=True)
    out = F.scaled_dot_product_attention(q, k, v + 1, dropout_p=0.5)
    out.sum().backward()
    kept = v.grad[0, 0, :, 0].cpu() * 101  # 0 or 2 for each key
    assert set(kept.round().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(out.detach().cpu()[0, 0, 0, 0], kept.mean())


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0)])
def test_attention_within_packed_sentences_is_that_of_each_sentence(window: tuple[int, int]) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")  # since torch 2.10
    torch.manual_seed(3)
    lengths = [3, 1, 5]
    q, k, v = (torch.randn(sum(lengths), H, D) for _ in range(3))
    parts = [[part.transpose(0, 1)[None] for part in x.split(lengths)] for x in (q, k, v)]
    is_causal = window == (-1, 0)
    expected = [attention_and_gradients(*one, is_causal=is_causal) for one in zip(*parts, strict=True)]
    with PretendedCuda() as cuda:
        inputs = [on_device(x).requires_grad_() for x in (q, k, v)]
        starts = on_device(torch.tensor([0, 3, 4, 9], dtype=torch.int32))
        out = varlen.varlen_attn(*inputs, starts, starts, 5, 5, window_size=window)
        weights = [torch.linspace(-1, 1, H * n * D).view(H, n, D).transpose(0, 1) for n in lengths]
        out.backward(on_device(torch.cat(weights)))
        assert cuda.attention == {"varlen": 1} and not cuda.waits
        found = [x.detach().cpu() for x in (out, *(x.grad for x in inputs))]
    for whole, of_sentences in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat([x[0].transpose(0, 1) for x in of_sentences]), atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("cuda")
def test_a_module_moves_trains_and_is_copied() -> None:
    module = nn.Linear(3, 5)
    expected = copy.deepcopy(module)
    module = copy.deepcopy(module.to("cuda"))
    for one, x in ((module, torch.ones(2, 3, device="cuda")), (expected, torch.ones(2, 3))):
        optimizer = torch.optim.AdamW(one.parameters(), 0.1, fused=True)
        one(x).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(module.weight.detach().cpu(), expected.weight.detach())


def test_kernels_are_counted_and_views_are_none(cuda: PretendedCuda) -> None:
    x = torch.empty(3, 5, device="cuda")
    x.t()[2:].unsqueeze(0).expand(2, 3, 3)
    assert cuda.num_kernels == 0
    x.exp().add_(1)
    torch._foreach_add_([x, x.t()], 1)
    assert cuda.num_kernels == 3 and cuda.calls["exp"] == 1


def test_bytes_of_living_tensors_are_added_up() -> None:
    with PretendedCuda(has_values=False, memory=1 << 40) as cuda:
        x = torch.zeros(1 << 30, 25, device="cuda")
        y = x[5:]
        del x
        assert cuda.live_bytes == 25 << 32 == torch.cuda.memory_allocated()
        z = (y @ y.t().narrow(1, 0, 3)).softmax(-1)
        assert z.shape == ((1 << 30) - 5, 3)
        del y, z
        assert cuda.live_bytes == 0 and cuda.peak_bytes > 25 << 32
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.zeros(1 << 40, device="cuda")
        assert cuda.live_bytes == 0


@pytest.mark.usefixtures("cuda")
def test_threads_that_start_inside_have_the_device() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(3, device="cuda").sum()))
    thread.start()
    thread.join()
    assert found[0].item() == 3.0


@pytest.mark.usefixtures("cuda")
def test_a_graph_repeats_what_was_captured_which_itself_changes_nothing() -> None:
    x, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x += 1
        y = x * 2
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            x.sum().item()
    assert x.tolist() == [0.0] * 3
    graph.replay()
    graph.replay()
    assert (x.tolist(), y.tolist()) == ([2.0] * 3, [4.0] * 3)
    x.fill_(math.pi)
    graph.replay()
    assert y.tolist() == [pytest.approx(2 * math.pi + 2)] * 3
