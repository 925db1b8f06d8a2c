"""Decoding with CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence

import ctranslate2

from benchmarking.peers.programs.loop import decode, read_words, the_task

_COMPUTE_TYPES = {"fp32": "float32", "int8": "int8"}


def main() -> None:
    task = the_task()
    translator = ctranslate2.Translator(
        f"{task.work}/model",
        device="cpu",
        compute_type=_COMPUTE_TYPES[task.precision],
        inter_threads=1,
        intra_threads=task.threads,
    )

    def translate(batch: Sequence[Sequence[str]]) -> int:
        found = translator.translate_batch(
            batch,
            beam_size=task.beam,
            length_penalty=0.6 if task.beam > 1 else 0.0,
            min_decoding_length=task.length,
            max_decoding_length=task.length,
        )
        return sum(len(each.hypotheses[0]) for each in found)

    decode(task, read_words(task.data, "test.src"), translate)


if __name__ == "__main__":
    main()
