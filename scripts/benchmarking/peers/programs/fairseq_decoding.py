"""Decoding with fairseq's sequence generator, by a model with random weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from fairseq import options, tasks

from benchmarking.peers.programs.loop import decode, read_words, the_task


def main() -> None:
    task = the_task()
    arguments = sys.argv[-2].split("\n")  # those of training, which describe the model
    # fairseq counts </s> beyond these lengths.
    lengths_of = ["--max-len-a", "0", "--max-len-b", str(task.length - 1), "--min-len", str(task.length - 1)]
    parsed: Any = options.parse_args_and_arch(options.get_training_parser(), arguments)
    translation = tasks.setup_task(parsed)
    model = translation.build_model(parsed).eval()
    generator = translation.build_generator(
        [model],
        options.parse_args_and_arch(
            options.get_generation_parser(),
            [arguments[0], "--beam", str(task.beam), "--lenpen", "0.6", *lengths_of],
        ),
    )
    dictionary = translation.source_dictionary

    @torch.inference_mode()
    def translate(batch: Sequence[Sequence[str]]) -> int:
        ids = [[*map(dictionary.index, words), dictionary.eos()] for words in batch]
        longest = max(map(len, ids))
        # fairseq pads sources on the left.
        src = torch.tensor([[dictionary.pad()] * (longest - len(row)) + row for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        found = generator.generate([model], {"net_input": {"src_tokens": src, "src_lengths": lengths}})
        return sum(len(hypotheses[0]["tokens"]) for hypotheses in found)

    decode(task, read_words(task.data, "test.src"), translate)


if __name__ == "__main__":
    main()
