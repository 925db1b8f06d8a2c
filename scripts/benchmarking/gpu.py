"""What to measure first on a GPU: products, attention, updates, waits, precisions and search, on random batches.

Nothing needs a corpus, a tokenizer or the network. A section that fails is reported with its error, and the next one
goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.clock import peak_memory, synchronize
from benchmarking.flops import batch_work, forward_flops, key_sizes, weight_products
from benchmarking.peak_flops import memory_bandwidth, product_rates
from benchmarking.report import Report, dtype_name
from transformer.config import Config
from transformer.data.batching import Batch
from transformer.data.tokenizer import BOS_ID, EOS_ID
from transformer.inference.search import beam_search, greedy_search
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import DecoderState
from transformer.training.data import Update
from transformer.training.device import resolve_dtype
from transformer.training.optimizer import MasterWeights, adam
from transformer.training.train_step import NonfiniteGuard, accumulate_gradients

_KERNELS = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}  # torch.nn.attention.SDPBackend
_PRECISIONS = ("bf16", "fp16", "tf32", "fp32")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        tokens: padded tokens of an update per side; it is one batch, or several of `small` tokens.
        length: of sentences.
        repeat: measurements, of which the median counts.
        sentences: translated at a time.
        steps: of a search.
    """

    tokens: int = 25000
    small: int = 4096
    length: int = 28
    repeat: int = 20
    sentences: tuple[int, ...] = (1, 16, 136, 1000)
    steps: int = 24
    seconds: float = 0.3


TINY = Sizes(tokens=120, small=60, length=5, repeat=2, sentences=(2,), steps=3, seconds=0.001)


def benchmark_gpu(config: Config, device: torch.device, *, tiny: bool = False) -> Report:
    """Measure all sections; `tiny` shrinks model and sizes so much that a CPU takes seconds, to try the program."""
    measured = _Measurements(shrunk(config) if tiny else config, device, TINY if tiny else Sizes())
    sections: dict[str, Callable[[], Any]] = {
        "versions": measured.versions,
        "products": measured.products,
        "attention": measured.attention,
        "update": measured.updates,
        "wait_in_update": measured.wait_in_update,
        "precision": measured.precisions,
        "search": measured.searches,
    }
    report: dict[str, Any] = {}
    for name, section in sections.items():
        try:
            report[name] = section()
        except (RuntimeError, MemoryError, ValueError) as error:
            report[name] = _failure(error)
    return report


def _failure(error: Exception) -> str:
    return f"failed: {next(iter(str(error).splitlines()), type(error).__name__)}"


def shrunk(config: Config) -> Config:
    """The configuration with a model of which a CPU trains a batch in milliseconds."""
    model = replace(config.model, d_model=32, num_heads=2, d_ff=48, num_layers=1, d_k=None, d_v=None)
    return replace(config, model=model, data=replace(config.data, vocab_size=101))


@contextlib.contextmanager
def cudnn_attention(is_allowed: bool) -> Iterator[None]:
    """Let attention take cuDNN's kernel or not."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(is_allowed)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class _Trained:
    """An untrained model in training, and its updates."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        model = build_model(config.data.vocab_size, config.model).to(device)
        self._weights = MasterWeights(model, dtype)
        self._weights.model.train()
        self._optimizer = adam(model.parameters(), config.train)
        self._guard = NonfiniteGuard(self._weights.loss_scale)

    def update(self, batches: list[Batch]) -> None:
        weights, train = self._weights, self._config.train
        accumulate_gradients(weights, batches, train.label_smoothing)
        parameters = list(weights.master.parameters())
        self._guard.step(self._optimizer, parameters, Update(1, 1, 1, []), train.clip_norm)
        self._optimizer.zero_grad(set_to_none=True)
        weights.refresh()


class _Measurements:
    def __init__(self, config: Config, device: torch.device, sizes: Sizes) -> None:
        self._config, self._device, self._sizes = config, device, sizes
        self._dtype = resolve_dtype(config.train.precision, device)

    def versions(self) -> Report:
        is_cuda = self._device.type == "cuda"
        return {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if is_cuda else None,
            "card": torch.cuda.get_device_name(self._device) if is_cuda else self._device.type,
            "capability": ".".join(map(str, torch.cuda.get_device_capability(self._device))) if is_cuda else None,
            "memory_gib": torch.cuda.get_device_properties(self._device).total_memory / 2**30 if is_cuda else None,
            "dtype": dtype_name(self._dtype),
        }

    def products(self) -> Report:
        """TFLOP/s of the model's products with all tokens of an update, forward and of both gradients; memory."""
        sizes, products = self._sizes, weight_products(self._config.model, self._config.data.vocab_size)
        rates = [
            product_rates(sizes.tokens, x.inputs, x.outputs, self._dtype, self._device, sizes.seconds) for x in products
        ]
        rows = [
            {"inputs": product.inputs, "outputs": product.outputs}
            | {name: rate / 1e12 for name, rate in measured._asdict().items()}
            for product, measured in zip(products, rates, strict=True)
        ]
        num_bytes = 1 << (20 if sizes is TINY else 28)
        return {"tflops": rows, "copy_gb_per_s": memory_bandwidth(self._device, num_bytes, sizes.seconds) / 1e9}

    def attention(self) -> Report:
        """Milliseconds of both passes at a new shape and again, with cuDNN and without, and the kernel."""
        return {"passes": [self._attention_at_new_shapes(is_allowed) for is_allowed in (False, True)]}

    def _attention_at_new_shapes(self, is_allowed: bool) -> Report:
        sizes, heads, (d_k, _) = self._sizes, self._config.model.num_heads, key_sizes(self._config.model)
        first, again, kernel = [], [], None
        with cudnn_attention(is_allowed):
            for i in range(sizes.repeat):
                length, sentences = sizes.length + i, sizes.tokens // sizes.length - i - is_allowed
                shape = (max(1, sentences), heads, length, d_k)
                q, k, v = (torch.randn(shape, device=self._device).to(self._dtype).requires_grad_() for _ in range(3))
                mask = torch.ones(shape[0], 1, 1, length, dtype=torch.bool, device=self._device)

                def call(q: Tensor = q, k: Tensor = k, v: Tensor = v, mask: Tensor = mask) -> None:
                    F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()

                first.append(self._seconds(call)[0])
                again.append(self._seconds(call)[0])
            if hasattr(torch, "_fused_sdp_choice"):
                kernel = _KERNELS.get(int(torch._fused_sdp_choice(q, k, v, attn_mask=mask)), "another")
        medians = {name: 1e3 * statistics.median(times) for name, times in (("new_ms", first), ("again_ms", again))}
        return {"cudnn": "allowed" if is_allowed else "off", "kernel": kernel, **medians}

    def updates(self) -> Report:
        """An update as one batch and as several, and with a new shape each time, with cuDNN and without."""
        sizes, trained = self._sizes, _Trained(self._config, self._device, self._dtype)
        several = [self._batch(sizes.small, sizes.length) for _ in range(sizes.tokens // sizes.small)]
        lengths = itertools.cycle(range(max(2, sizes.length // 3), 2 * sizes.length))
        rows = []
        for is_allowed in (False, True):
            with cudnn_attention(is_allowed):
                label = f"cuDNN {'allowed' if is_allowed else 'off'}"
                for name, batches in (
                    ("one batch", lambda: [self._whole_batch]),
                    (f"{len(several)} batches of {sizes.small}", lambda: several),
                    ("a new shape each", lambda: [self._batch(sizes.tokens, next(lengths))]),
                ):
                    found = self._time_updates(trained, batches, warm=name != "a new shape each")
                    rows.append({"update": f"{name}, {label}", **found})
        return {"passes": rows}

    @cached_property
    def _whole_batch(self) -> Batch:
        return self._batch(self._sizes.tokens, self._sizes.length)

    def _time_updates(self, trained: _Trained, batches: Callable[[], list[Batch]], *, warm: bool = True) -> Report:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        if warm:
            for _ in range(3):
                trained.update(batches())
        seconds, host, flops, tokens = [], [], 0.0, 0.0
        for _ in range(self._sizes.repeat):
            given = batches()
            whole, launched = self._seconds(partial(trained.update, given))
            seconds.append(whole)
            host.append(launched)
            work = batch_work(given)
            tokens += work.target_tokens
            flops += 3 * forward_flops(self._config.model, self._config.data.vocab_size, work)
        typical, number = statistics.median(seconds), len(seconds)
        return {
            "ms": 1e3 * typical,
            "host_ms": 1e3 * statistics.median(host),
            "tokens_per_s": tokens / number / typical,
            "tflops": flops / number / typical / 1e12,
            "peak_gib": peak_memory(self._device) / 2**30,
        }

    def wait_in_update(self) -> str:
        """The first place where the host waits for the device, if there is one."""
        if self._device.type != "cuda":
            return "not on CUDA"
        trained = _Trained(self._config, self._device, self._dtype)
        batch = self._whole_batch
        trained.update([batch])
        synchronize(self._device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            trained.update([batch])
        except RuntimeError as error:
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = "" if place is None else f" at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            return f"{str(error).splitlines()[0]}{where}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return "none"

    def precisions(self) -> Report:
        """One batch in each precision that the device multiplies."""
        found: dict[str, Any] = {}
        for precision in _PRECISIONS:
            try:
                trained = _Trained(self._config, self._device, resolve_dtype(precision, self._device))
                found[precision] = self._time_updates(trained, lambda: [self._whole_batch])
            except (RuntimeError, ValueError, MemoryError) as error:
                found[precision] = _failure(error)
        resolve_dtype(self._config.train.precision, self._device)
        return found

    def searches(self) -> Report:
        """Milliseconds per step of both searches, by the number of sentences, the first time and again."""
        model = build_model(self._config.data.vocab_size, self._config.model).to(self._device, self._dtype).eval()
        never = torch.zeros(self._config.data.vocab_size, device=self._device)
        never[EOS_ID] = -1e4  # no hypothesis ends before the limit

        def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
            hidden, state = model.decode(tokens[:, None], state)
            return model.logits(hidden[:, -1]) + never, state

        rows = []
        searches: tuple[tuple[str, Callable[..., object], dict[str, int]], ...] = (
            ("greedy", greedy_search, {}),
            ("beam 4", beam_search, {"beam": 4}),
        )
        for number, (name, search, options) in itertools.product(self._sizes.sentences, searches):
            source = torch.full((number, self._sizes.length), 11, device=self._device)
            limits = [self._sizes.steps] * number

            def run(
                search: Any = search, options: Any = options, source: Tensor = source, limits: Any = limits
            ) -> None:
                with torch.no_grad():
                    state = model.encode(source)
                search(decode, state, limits, bos_id=BOS_ID, eos_id=EOS_ID, device=self._device, **options)

            first = self._seconds(run)[0]
            again = statistics.median(self._seconds(run)[0] for _ in range(min(5, self._sizes.repeat)))
            rows.append(
                {
                    "search": name,
                    "sentences": number,
                    "first_ms_per_step": 1e3 * first / self._sizes.steps,
                    "ms_per_step": 1e3 * again / self._sizes.steps,
                    "tokens_per_s": number * self._sizes.steps / again,
                }
            )
        return {"steps": rows}

    def _batch(self, tokens: int, length: int) -> Batch:
        """Random sentences of one length."""
        ids = torch.randint(4, self._config.data.vocab_size, (max(1, tokens // length), length))
        return Batch(ids, ids, ids, torch.arange(ids.numel())).to(self._device)

    def _seconds(self, call: Callable[[], object]) -> tuple[float, float]:
        """Seconds until the work is done, and until the host has launched it."""
        synchronize(self._device)
        began = time.perf_counter()
        call()
        launched = time.perf_counter() - began
        synchronize(self._device)
        return time.perf_counter() - began, launched
