"""Score a trained model: transformer evaluate RUN [--split test | --test-set NAME | --src FILE --ref FILE]"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from transformer.config import load_config, override
from transformer.data.corpus import Corpus, aligned_lines, load_split, published_test_set
from transformer.errors import ConfigError
from transformer.files import check_replaceable, write_atomic
from transformer.hub import is_model_id
from transformer.inference.bleu import TOKENIZERS, compound_split_score, moses_tokenizer, score
from transformer.inference.translator import Translator
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext, init_distributed

_TEXT = """\
{checkpoint} on {corpus}: {sentences} sentences, beam {beam}, alpha {alpha}
translated in {seconds:.1f} s, {sentences_per_s} sentences/s
{bleu_details}
{compound_split}chrF2 = {chrf:.2f}  {chrf_signature}
BLEU = {bleu:.2f}  {bleu_signature}"""
_COMPOUND_SPLIT = """\
tokenised, compound-split BLEU (as the paper's authors counted; not comparable with the last line): \
{compound_split_details}  {compound_split_signature}
"""


def main(argv: Sequence[str] | None = None) -> int:
    with init_distributed() as context:
        return _evaluate(_parse(argv), context)


def _evaluate(arguments: argparse.Namespace, context: DistributedContext) -> int:
    tune_process()
    checkpoint, origin, corpus, pairs = context.broadcast_from_main(lambda: _read(arguments))
    tgt_lang = load_config(checkpoint / "config.yaml", saved=True).data.tgt_lang
    moses = moses_tokenizer(tgt_lang) if arguments.compound_split else None
    translator = Translator.load(checkpoint, device=arguments.device, precision=arguments.precision)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    translator.context = context
    if arguments.output is not None and context.is_main:
        check_replaceable(arguments.output)
    sources, references = ([pair[side] for pair in pairs] for side in (0, 1))
    began = time.perf_counter()
    hypotheses = translator.translate(sources)
    seconds = time.perf_counter() - began
    if not context.is_main:
        return 0
    scores = dataclasses.asdict(score(hypotheses, references, arguments.tokenize))
    if arguments.output is not None:
        write_atomic(arguments.output, "".join(f"{line}\n" for line in hypotheses))
    if moses is not None:
        found = dataclasses.asdict(compound_split_score(hypotheses, references, moses))
        scores |= {f"compound_split_{name}": value for name, value in found.items()}
    report = {
        "checkpoint": origin,
        "corpus": corpus,
        "sentences": len(pairs),
        "seconds": round(seconds, 3),
        "sentences_per_s": round(len(pairs) / seconds, 1),
        "beam": translator.search.beam,
        "alpha": translator.search.alpha,
        **{name: round(x, 2) if isinstance(x, float) else x for name, x in scores.items()},
    }
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        compound_split = "" if moses is None else _COMPOUND_SPLIT.format(**report)
        print(_TEXT.format(**report, compound_split=compound_split))
    return 0


def _read(arguments: argparse.Namespace) -> tuple[Path, str, str, list[tuple[str, str]]]:
    """Checkpoint directory, its origin, and the name and the pairs of the corpus to score."""
    checkpoint, origin = locate_checkpoint(arguments.run)
    data = load_config(checkpoint / "config.yaml", saved=True).data
    if arguments.src is not None:
        corpus = Corpus(f"{arguments.src} and {arguments.ref}", "", lambda: aligned_lines(arguments.src, arguments.ref))
    elif arguments.test_set is not None:
        corpus = published_test_set(arguments.test_set, data.src_lang, data.tgt_lang)
    elif is_model_id(arguments.run) and data.corpus not in ("builtin", "treebank"):
        # Its author chose that name, which could be that of local files or of another download.
        raise ConfigError(
            f"{arguments.run}: a model from the hub is not scored on the corpus that it names ({data.corpus}); "
            "give --test-set, or --src and --ref"
        )
    else:
        corpus = load_split(data, arguments.split or data.test_split)
    return checkpoint, origin, corpus.name, list(corpus)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--split", help="of the run's corpus; by default its test split")
    parser.add_argument("--test-set", metavar="NAME", help="score on this sacreBLEU test set, such as wmt14/full")
    parser.add_argument("--src", type=Path, help="score on this file instead, a sentence per line")
    parser.add_argument("--ref", type=Path, help="its reference translations, raw as given")
    parser.add_argument("--tokenize", choices=TOKENIZERS, default="13a", help="none: the text is tokenised already")
    parser.add_argument(
        "--compound-split", action="store_true", help="also print BLEU as the paper's authors counted it"
    )
    parser.add_argument("--beam", type=int)
    parser.add_argument("--alpha", type=float, help="exponent of the length penalty")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    parser.add_argument("--output", type=Path, help="write the translations to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    if (arguments.src is None) != (arguments.ref is None):
        raise ConfigError("--src and --ref go together")
    given = [f"--{x}" for x in ("split", "test-set", "src") if getattr(arguments, x.replace("-", "_")) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
    if arguments.compound_split and arguments.tokenize == "none":
        raise ConfigError("--compound-split tokenises raw text; --tokenize none says that it is tokenised already")
    return arguments
