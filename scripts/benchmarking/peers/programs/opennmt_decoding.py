"""Decoding with OpenNMT-py, by the model that one update left."""

from __future__ import annotations

from collections.abc import Sequence

from onmt.inference_engine import InferenceEnginePY
from onmt.opts import translate_opts
from onmt.utils.parse import ArgumentParser

from benchmarking.peers.programs.loop import BATCH, decode, read_words, the_task


def main() -> None:
    task = the_task()
    parser = ArgumentParser(description="translate")
    translate_opts(parser)
    options = {
        "model": f"{task.work}/model_step_1.pt",
        "src": "-",
        "beam_size": task.beam,
        "length_penalty": "wu",
        "alpha": 0.6,
        "min_length": task.length,
        "max_length": task.length,
        "max_length_ratio": 0,  # else outputs are cut to a multiple of their source
        "batch_size": task.batch or BATCH,
        "batch_type": "sents",
    }
    opt = parser.parse_args([word for name, value in options.items() for word in (f"-{name}", str(value))])
    ArgumentParser.validate_translate_opts(opt)
    ArgumentParser._get_all_transform_translate(opt)
    ArgumentParser._validate_transforms_opts(opt)
    ArgumentParser.validate_translate_opts_dynamic(opt)
    engine = InferenceEnginePY(opt)

    def translate(batch: Sequence[Sequence[str]]) -> int:
        _, found = engine.infer_list([" ".join(words) for words in batch])
        return sum(len(hypotheses[0].split()) for hypotheses in found)

    decode(task, read_words(task.data, "test.src"), translate)


if __name__ == "__main__":
    main()
