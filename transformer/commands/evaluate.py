"""Score a trained model: python scripts/evaluate.py RUN [--split test | --test-set NAME | --src FILE --ref FILE]"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer.config import DataConfig, load_config, override
from transformer.data.corpus import Corpus, aligned_lines, load_split, published_test_set
from transformer.errors import ConfigError
from transformer.files import check_replaceable, write_whole
from transformer.hub import check_links, fetch_model, is_model_id
from transformer.inference.bleu import (
    TOKENIZERS,
    CompoundSplitScore,
    Score,
    compound_split_score,
    moses_tokenizer,
    score,
)
from transformer.inference.translator import Translator
from transformer.training.distributed import World, joined
from transformer.training.process import tune_process
from transformer.training.run import find_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    with joined() as world:
        return _evaluate(_parse(argv), world)


def _evaluate(arguments: argparse.Namespace, world: World) -> int:
    tune_process()
    checkpoint, origin, name, pairs = world.from_main(lambda: _read(arguments))
    tgt_lang = load_config(checkpoint / "config.yaml", allow_base=False).data.tgt_lang
    moses = moses_tokenizer(tgt_lang) if arguments.compound_split else None
    translator = Translator.load(checkpoint, device=arguments.device, precision=arguments.precision)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    translator.world = world
    if arguments.output is not None and world.is_main:
        check_replaceable(arguments.output)
    began = time.perf_counter()
    hypotheses = translator.translate([source for source, _ in pairs])
    seconds = time.perf_counter() - began
    if not world.is_main:
        return 0
    references = [reference for _, reference in pairs]
    result = score(hypotheses, references, arguments.tokenize)
    if arguments.output is not None:
        write_whole(arguments.output, "".join(f"{line}\n" for line in hypotheses))
    report = {
        "checkpoint": origin,
        "corpus": name,
        "sentences": len(pairs),
        "seconds": round(seconds, 3),
        "sentences_per_s": round(len(pairs) / seconds, 1),
        "beam": translator.search.beam,
        "alpha": translator.search.alpha,
        **_rounded(result),
    }
    if moses is not None:
        compound_split = compound_split_score(hypotheses, references, moses)
        report |= {f"compound_split_{name}": value for name, value in _rounded(compound_split).items()}
    print(json.dumps(report, ensure_ascii=False) if arguments.json else _as_text(report))
    return 0


def _read(arguments: argparse.Namespace) -> tuple[Path, str, str, list[tuple[str, str]]]:
    """The checkpoint and where it is from, and the name and the pairs of the corpus to score it on."""
    is_foreign = is_model_id(arguments.run)
    if is_foreign:
        checkpoint, origin = fetch_model(arguments.run)
    else:
        checkpoint = find_checkpoint(arguments.run)
        origin = str(checkpoint)
    check_links(checkpoint)
    corpus = _corpus(arguments, load_config(checkpoint / "config.yaml", allow_base=False).data, is_foreign)
    return checkpoint, origin, corpus.name, list(corpus)


def _corpus(arguments: argparse.Namespace, data: DataConfig, is_foreign: bool) -> Corpus:
    if arguments.src is not None:
        return Corpus(f"{arguments.src} and {arguments.ref}", "", lambda: aligned_lines(arguments.src, arguments.ref))
    if arguments.test_set is not None:
        return published_test_set(arguments.test_set, data.src_lang, data.tgt_lang)
    if is_foreign and data.corpus not in ("builtin", "treebank"):
        # Its author chose the name: of files on this machine, or of another download.
        raise ConfigError(
            f"{arguments.run}: a model from the hub is not scored on the corpus that it names ({data.corpus}); "
            "give --test-set, or --src and --ref"
        )
    return load_split(data, arguments.split or data.test_split)


def _rounded(result: Score | CompoundSplitScore) -> dict[str, Any]:
    return {name: round(x, 2) if isinstance(x, float) else x for name, x in dataclasses.asdict(result).items()}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--split", help="of the run's corpus; by default its test split")
    parser.add_argument("--test-set", metavar="NAME", help="score on this test set of sacreBLEU's, such as wmt14/full")
    parser.add_argument("--src", type=Path, help="score on this file instead, a sentence per line")
    parser.add_argument("--ref", type=Path, help="its reference translations, raw as given")
    parser.add_argument("--tokenize", choices=TOKENIZERS, default="13a", help="none: the text is tokenised already")
    parser.add_argument(
        "--compound-split",
        action="store_true",
        help="print also the BLEU that the paper's authors counted: of tokenised text, compounds split",
    )
    parser.add_argument("--beam", type=int)
    parser.add_argument("--alpha", type=float, help="of the length penalty")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    parser.add_argument("--output", type=Path, help="write the translations to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    if (arguments.src is None) != (arguments.ref is None):
        raise ConfigError("--src and --ref go together")
    named = [
        f"--{name.replace('_', '-')}" for name in ("split", "test_set", "src") if getattr(arguments, name) is not None
    ]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} exclude each other")
    if arguments.compound_split and arguments.tokenize == "none":
        raise ConfigError(
            "--compound-split tokenises raw text; --tokenize none says that the text is tokenised already"
        )
    return arguments


def _as_text(report: dict[str, Any]) -> str:
    lines = [
        "{checkpoint} on {corpus}: {sentences} sentences, beam {beam}, alpha {alpha}",
        "translated in {seconds:.1f} s, {sentences_per_s} sentences/s",
        "{bleu_details}",
        "chrF2 = {chrf:.2f}  {chrf_signature}",
        "BLEU = {bleu:.2f}  {bleu_signature}",
    ]
    if "compound_split_bleu" in report:
        label = "tokenised, compound-split BLEU (as the paper's authors counted; not comparable with the last line)"
        lines.insert(3, f"{label}: {{compound_split_details}}  {{compound_split_signature}}")
    return "\n".join(lines).format(**report)
