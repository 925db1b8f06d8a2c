"""Look into a trained model: transformer inspect RUN [SECTION ...] [--split test | --src FILE --ref FILE]

Prints a table for each section, on the first sentences of a split: what each layer would predict (lens), what it writes
into the residual stream (stream), norms of gradients (gradients), singular values of Jacobians (jacobians) and of
weights (spectra), principal components of embeddings and positions (components), what heads look at (heads). BLEU
without each head (ablation) and the senses of a word (probe) take longer, and are asked for.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer.commands.outputs import check_output
from transformer.commands.scored_texts import choose_tokenizer, read_texts
from transformer.commands.search_options import add_tag_options, choose_tag
from transformer.commands.selection import report_checkpoint
from transformer.config import Config, load_config
from transformer.data.corpus import read_lines
from transformer.errors import ConfigError, DataError, warn
from transformer.inference.arguments import DEVICES
from transformer.inference.evaluation_set import EvaluationSet
from transformer.inference.sources import list_numbers
from transformer.inference.translator import Translator
from transformer.inspection.canvas import THEMES, check_format, save, theme
from transformer.inspection.section_figures import FIGURES
from transformer.inspection.section_tables import TABLES
from transformer.inspection.sections import CHEAP, SECTIONS, Subject, inspect_section
from transformer.progress import stage
from transformer.training.checkpoint import locate_checkpoint

_FORMATS = ("svg", "png", "pdf")
# Those that look at the weights alone, or at sentences of their own.
_WITHOUT_TEXTS = {"spectra", "components", "probe"}
_WITHOUT_PAIRS = {*_WITHOUT_TEXTS, "ablation"}  # which translates what it is given


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    checkpoint, origin = locate_checkpoint(arguments.run)
    config = load_config(checkpoint / "config.yaml", saved=True)
    needs_texts = bool({*arguments.sections} - _WITHOUT_TEXTS)
    texts = _first(read_texts(arguments, arguments.run, config.data), arguments.sentences) if needs_texts else None
    senses = _read_senses(arguments.senses) if arguments.probe is not None else []
    files = _check_files(arguments, config)
    subject = _subject(arguments, checkpoint, config, texts, senses)
    subject.translator.origin = origin
    report_checkpoint(arguments.run, origin)
    found: dict[str, Any] = {"checkpoint": origin}
    if texts is not None:
        found |= {"corpus": texts.name, "sentences": len(texts)}
        if not arguments.json:
            print(f"{origin} on {texts.name}: {len(texts):,} sentences")
    if {*arguments.sections} - _WITHOUT_PAIRS:
        found["left_out"] = _left_out(subject)
    for name in arguments.sections:
        found[name] = inspect_section(name, subject)
        if not arguments.json:
            print(f"\n## {name}\n\n{TABLES[name](found[name])}", end="", flush=True)
        if name in files:
            with theme(arguments.theme):
                save(FIGURES[name](found[name]), files[name])
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    return 0


def _subject(
    arguments: argparse.Namespace,
    checkpoint: Path,
    config: Config,
    texts: EvaluationSet | None,
    senses: list[tuple[str, str]],
) -> Subject:
    """The model and its texts; UserError as of `Translator.load`."""
    tokenize = "13a"
    if "ablation" in arguments.sections:
        tokenize = choose_tokenizer(arguments, config.data, config.data.tgt_lang)
    # In bf16 sums would not be exact; prepacked weights have no gradients and cannot be looked at.
    translator = Translator.load(checkpoint, device=arguments.device, precision="fp32", prepack=False)
    choose_tag(arguments, translator)
    return Subject(
        translator,
        texts.sources or [] if texts is not None else [],
        texts.references if texts is not None else [[]],
        label_smoothing=config.train.label_smoothing,
        tokenize=tokenize,
        beam=arguments.beam,
        word=arguments.probe,
        senses=senses,
        stage=stage,
    )


def _first(texts: EvaluationSet, number: int) -> EvaluationSet:
    """The first sentences of a set. DataError if there is none."""
    if not len(texts):
        raise DataError(f"{texts.name}: there is nothing to look at: the references are empty")
    sources = None if texts.sources is None else texts.sources[:number]
    return EvaluationSet(texts.name, sources, [side[:number] for side in texts.references], texts.names, texts.files)


def _left_out(subject: Subject) -> int:
    """How many pairs cannot be looked at, with a warning that lists them."""
    usable = {*subject.usable}
    if numbers := [i + 1 for i in range(len(subject.sources)) if i not in usable]:
        pairs = "1 pair is" if len(numbers) == 1 else f"{len(numbers)} pairs are"
        warn(f"{pairs} not looked at, with an empty side or beyond the limit: {list_numbers(numbers)}")
    return len(numbers)


def _read_senses(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Pairs of sense and sentence: a file per sense, or one file of both, separated by a tabulator."""
    if len(files) > 1:
        names = [path.stem if len({one.stem for one in files}) == len(files) else str(path) for path in files]
        return [(name, line) for name, path in zip(names, files, strict=True) for line in read_lines(path)]
    pairs = []
    for number, line in enumerate(read_lines(files[0]), start=1):
        sense, separator, sentence = line.partition("\t")
        if not separator:
            raise DataError(f"{files[0]}, line {number}: give a sense, a tabulator and a sentence, or a file per sense")
        pairs.append((sense.strip(), sentence.strip()))
    return pairs


def _check_files(arguments: argparse.Namespace, config: Config) -> dict[str, Path]:
    """The figures to write, by section, none without --out; ConfigError as of `check_output`."""
    if arguments.out is None:
        return {}
    files = {name: arguments.out / f"{name}.{arguments.format}" for name in arguments.sections}
    inputs = [path for path in (arguments.src, *arguments.ref, *arguments.senses) if path is not None]
    for path in files.values():
        check_format(path)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in files.values():
        check_output(path, inputs, config.data)
    return files


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    names = f"some of {', '.join(SECTIONS)}; by default {', '.join(CHEAP)}"
    parser.add_argument("sections", metavar="SECTION", nargs="*", help=names)
    parser.add_argument("--split", help="of the run's corpus; by default its test split")
    parser.add_argument("--test-set", metavar="NAME", help="one of sacreBLEU's test sets, such as wmt14/full")
    parser.add_argument("--src", type=Path, metavar="FILE", help="look at this file instead, a sentence per line")
    parser.add_argument("--ref", type=Path, metavar="FILE", nargs="+", default=[], help="its reference translations")
    parser.add_argument("--sentences", type=int, metavar="N", help="only the first (default: 200)")
    parser.add_argument(
        "--ablate", action="store_true", help="the section ablation: BLEU without each head, one by one"
    )
    parser.add_argument("--beam", type=int, metavar="N", help="of those translations (default: 1, greedy)")
    parser.add_argument("--probe", metavar="WORD", help="the section probe, for a word of the source language")
    senses = "sentences with the word: a file per sense, or one of lines with a sense, a tabulator and a sentence"
    parser.add_argument("--senses", type=Path, metavar="FILE", nargs="+", default=[], help=senses)
    add_tag_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also draw each section into this directory")
    parser.add_argument("--format", choices=_FORMATS, help="of the figures (default: svg), which need matplotlib")
    parser.add_argument("--theme", choices=tuple(THEMES), help="colours of the figures (default: light)")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    arguments = parser.parse_intermixed_args(argv)
    arguments.tokenize, arguments.metrics = None, ["bleu"]  # as of the run
    _check(arguments)
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    """Complete the sections; ConfigError for options that do not go together."""
    asked = ["ablation"] * arguments.ablate + ["probe"] * (arguments.probe is not None)
    arguments.sections = list(dict.fromkeys([*arguments.sections, *asked])) or [*CHEAP]
    for name in arguments.sections:
        if name not in SECTIONS:
            raise ConfigError(f"{name!r} is not one of the sections {', '.join(SECTIONS)}")
    given = [f"--{x}" for x in ("split", "test-set", "src") if getattr(arguments, x.replace("-", "_")) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
    if (arguments.src is None) != (not arguments.ref):
        raise ConfigError("--src and --ref go together")
    if "probe" in arguments.sections and (arguments.probe is None or not arguments.senses):
        raise ConfigError("the section probe needs --probe WORD and --senses FILE ...")
    if arguments.senses and arguments.probe is None:
        raise ConfigError("--senses is of a probe: give --probe WORD")
    _check_idle(arguments)
    for option, default in (("sentences", 200), ("beam", 1), ("format", "svg"), ("theme", "light")):
        if getattr(arguments, option) is None:
            setattr(arguments, option, default)
    for option in ("sentences", "beam"):
        if getattr(arguments, option) < 1:
            raise ConfigError(f"--{option} {getattr(arguments, option)} must be at least 1")


def _check_idle(arguments: argparse.Namespace) -> None:
    """ConfigError for options that would change nothing."""
    sections = {*arguments.sections}
    texts = f"chooses sentence pairs, which no section reads of {', '.join(arguments.sections)}"
    for options, is_used, why in (
        (("split", "test_set", "src", "sentences"), sections - _WITHOUT_TEXTS, texts),
        (("beam",), "ablation" in sections, "is of the section ablation: give --ablate"),
        (("format", "theme"), arguments.out is not None, "is of figures: give --out DIR"),
    ):
        for option in options:
            if not is_used and getattr(arguments, option) is not None:
                raise ConfigError(f"--{option.replace('_', '-')} {why}")
