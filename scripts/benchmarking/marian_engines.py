"""Translation by one engine, in a process of its own: python -m benchmarking.marian_engines TASK

The last line printed is a JSON object with what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Texts = Sequence[str]
Translate = Callable[[Texts], tuple[list[str], int]]  # to translations, and the number of their tokens


def this(task: SimpleNamespace) -> Translate:
    """This program, as the translate command prepares it."""
    import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

    # isort: split
    import torch

    from transformer.inference.translator import Translator
    from transformer.training.device import tune_process

    tune_process(inference=True)
    torch.set_num_threads(task.threads)
    translator = Translator.load(task.directory, device="cpu", precision=task.precision)
    limits: Any = {"min_length": task.length, "max_length": task.length, "max_length_offset": task.length}

    def translate(texts: Texts) -> tuple[list[str], int]:
        found = translator.translate_nbest(texts, nbest=1, beam=task.beam, batch_tokens=1 << 20, **limits)
        return [best.text for (best,) in found], sum(len(best.ids) for (best,) in found)

    return translate


def transformers(task: SimpleNamespace) -> Translate:
    """Hugging Face's `generate`, with the settings of the directory."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch.set_num_threads(task.threads)
    tokenizer = AutoTokenizer.from_pretrained(task.directory)
    model = AutoModelForSeq2SeqLM.from_pretrained(task.directory, dtype=torch.float32).eval()
    options = {"num_beams": task.beam, "min_new_tokens": task.length, "max_new_tokens": task.length}
    options |= {"early_stopping": False, "max_length": None, "min_length": None}

    @torch.inference_mode()
    def translate(texts: Texts) -> tuple[list[str], int]:
        rows = model.generate(**tokenizer(list(texts), return_tensors="pt", padding=True), **options)
        return tokenizer.batch_decode(rows, skip_special_tokens=True), rows[:, 1:].numel()  # without the start

    return translate


def ctranslate2(task: SimpleNamespace) -> Translate:
    """CTranslate2, with SentencePiece before and behind it as its users have it."""
    from ctranslate2 import Translator
    from sentencepiece import SentencePieceProcessor

    directory = str(task.directory)
    source, target = (SentencePieceProcessor(model_file=f"{directory}/{side}.spm") for side in ("source", "target"))
    compute_type = {"fp32": "float32", "int8": "int8"}[task.precision]
    engine = Translator(directory, compute_type=compute_type, inter_threads=1, intra_threads=task.threads)
    # Without </s>, which it does not count.
    options = {"beam_size": task.beam, "min_decoding_length": task.length - 1, "max_decoding_length": task.length}
    options |= {"max_input_length": 0, "return_end_token": True, "disable_unk": True}

    def translate(texts: Texts) -> tuple[list[str], int]:
        found = engine.translate_batch(source.encode(list(texts), out_type=str), length_penalty=1.0, **options)
        outputs = [one.hypotheses[0] for one in found]
        pieces = [[piece for piece in output if piece != "</s>"] for output in outputs]
        return target.decode_pieces(pieces), sum(map(len, outputs))

    return translate


ENGINES = {engine.__name__: engine for engine in (this, transformers, ctranslate2)}


def main() -> None:
    task = json.loads(sys.argv[1], object_hook=lambda values: SimpleNamespace(**values))
    lines = Path(task.lines).read_text(encoding="utf-8").splitlines()
    batches = [lines[start : start + task.batch] for start in range(0, len(lines), task.batch)]
    translate = ENGINES[task.engine](task)
    translate(batches[0])  # warm-up
    began, cpu_began = time.perf_counter(), time.process_time()
    found = [translate(batch) for batch in batches]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    assert sum(len(texts) for texts, _ in found) == len(lines)
    tokens = sum(number for _, number in found) / len(lines)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens_per_sentence": tokens}), flush=True)


if __name__ == "__main__":
    main()
