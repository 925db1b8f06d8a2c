"""Train a tokenizer, split text into pieces, join pieces, or count them: transformer tokenizer ACTION ...

  train --output M.model FILE ...   train a SentencePiece model on text, as data.tokenizer takes it
  encode TOKENIZER [FILE | -]       a line of pieces, or of ids, per line of text
  decode TOKENIZER [FILE | -]       a line of text per line of pieces or ids
  stats  TOKENIZER FILE ...         pieces per word, lengths, unknown characters, use of the vocabulary

TOKENIZER is a SentencePiece model, a run, a checkpoint or a hub id. A model with other special ids than 0 to 3 gets
these, as in training, so its other ids may differ from those in its file.
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from transformer.commands.outputs import check_output
from transformer.config import DataConfig
from transformer.data.given_tokenizer import load_given, tokenizer_files
from transformer.data.subword_sampling import SubwordSampler
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.data.tokenizer_stats import TokenizerStats, tokenizer_stats
from transformer.errors import ConfigError, DataError
from transformer.files import write_atomic
from transformer.hub import is_model_id
from transformer.inference.line_input import file_input
from transformer.machine import num_cpus
from transformer.progress import stage
from transformer.sections.types import NormalizationRule, TokenizerType
from transformer.training.checkpoint import locate_checkpoint

_LINES_AT_A_TIME = 4000
_CHARACTERS_AT_A_TIME = 1 << 20
_DEFAULTS = DataConfig()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_train(actions.add_parser("train", help="train a model on text"))
    for name, act, purpose in (
        ("encode", _encode, "text to pieces"),
        ("decode", _decode, "pieces to text"),
        ("stats", _stats, "count pieces"),
    ):
        action = actions.add_parser(name, help=purpose)
        action.set_defaults(act=act)
        action.add_argument("tokenizer", metavar="TOKENIZER", help="a .model file, a run, a checkpoint or a hub id")
        action.add_argument("--side", choices=("source", "target"), help="which one, if each side has its own")
        if name == "stats":
            action.add_argument("files", metavar="FILE", nargs="+", help="text, plain or compressed")
            action.add_argument("--longest", metavar="N", type=int, default=5, help="how many lines (default: 5)")
            action.add_argument("--json", action="store_true", help="print a list of objects")
        else:
            action.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: standard input")
            action.add_argument("--ids", action="store_true", help="ids instead of pieces")
        if name == "encode":
            help_sample = "sample pieces: BPE dropout, or alpha of a unigram model"
            action.add_argument("--sample", metavar="P", type=float, help=help_sample)
            action.add_argument("--seed", type=int, help="of --sample (default: 1)")
    arguments = parser.parse_args(argv)
    chosen: Callable[[argparse.Namespace], None] = arguments.act
    chosen(arguments)
    return 0


def _add_train(action: argparse.ArgumentParser) -> None:
    action.set_defaults(act=_train)
    action.add_argument("files", metavar="FILE", nargs="+", help="text, plain or compressed")
    action.add_argument("--output", metavar="M.model", type=Path, required=True, help="the model to write")
    action.add_argument("--vocab-size", metavar="N", type=int, default=_DEFAULTS.vocab_size, help="number of pieces")
    action.add_argument("--tokenizer-type", choices=get_args(TokenizerType), default=_DEFAULTS.tokenizer_type)
    action.add_argument("--normalization", choices=get_args(NormalizationRule), default=_DEFAULTS.normalization)
    action.add_argument("--character-coverage", metavar="C", type=float, default=_DEFAULTS.character_coverage)
    action.add_argument("--byte-fallback", action="store_true", help="a piece of each byte")
    help_symbols = "a piece that is never split; may be repeated"
    action.add_argument("--user-symbol", metavar="S", action="append", default=[], help=help_symbols)


def _train(arguments: argparse.Namespace) -> None:
    inputs = [file_input(file) for file in arguments.files]
    check_output(arguments.output, [source.path for source in inputs if source.path])
    data = DataConfig(
        vocab_size=arguments.vocab_size,
        tokenizer_type=arguments.tokenizer_type,
        normalization=arguments.normalization,
        character_coverage=arguments.character_coverage,
        byte_fallback=arguments.byte_fallback,
        user_symbols=tuple(arguments.user_symbol),
    )
    with stage(f"learning {data.vocab_size:,} pieces"):
        lines = itertools.chain.from_iterable(source.read() for source in inputs)
        tokenizer = Tokenizer.train(lines, data.vocab_size, **data.tokenizer_settings)
    write_atomic(arguments.output, tokenizer.model)
    print(f"{arguments.output}: {len(tokenizer):,} pieces, {tokenizer.type}, normalization {tokenizer.normalization}")


def _encode(arguments: argparse.Namespace) -> None:
    if arguments.seed is not None and arguments.sample is None:
        raise ConfigError("--seed is of --sample: give --sample too")
    seed = 1 if arguments.seed is None else arguments.seed
    tokenizer = _load(arguments)
    sampler = _sampler(tokenizer, arguments.sample)
    numbers = itertools.count(1)
    for lines in _chunks(arguments.file):
        encoded = tokenizer.encode(lines, num_cpus())
        shown: list[list[str]] = [] if arguments.ids else tokenizer.encode_as_pieces(lines, num_cpus())
        printed = []
        for place, (ids, number) in enumerate(zip(encoded, numbers, strict=False)):
            found = ids if sampler is None else sampler.sample(ids, random.Random(f"{seed} {number}"))
            words = map(str, found) if arguments.ids else _spelt(tokenizer, found, ids, shown[place])
            printed.append(" ".join(words))
        print(*printed, sep="\n", flush=True)


def _spelt(tokenizer: Tokenizer, found: list[int], ids: list[int], pieces: list[str]) -> list[str]:
    """The pieces of ids, in which unknown ones have the characters of the text."""
    unknown = iter([piece for id_, piece in zip(ids, pieces, strict=True) if id_ == UNK_ID])
    named = tokenizer.pieces(found)
    return [next(unknown) if id_ == UNK_ID else piece for id_, piece in zip(found, named, strict=True)]


def _sampler(tokenizer: Tokenizer, value: float | None) -> SubwordSampler | None:
    """ConfigError for a value that is out of range; DataError for a model that is neither bpe nor unigram."""
    if value is None:
        return None
    is_unigram = tokenizer.type == "unigram"
    if not (0 < value <= 100 if is_unigram else 0 <= value < 1):
        accepted = "above 0 and at most 100, as alpha of a unigram model" if is_unigram else "in [0, 1), as BPE dropout"
        raise ConfigError(f"--sample {value} must be {accepted}")
    return SubwordSampler(tokenizer, alpha=value) if is_unigram else SubwordSampler(tokenizer, dropout=value)


def _decode(arguments: argparse.Namespace) -> None:
    tokenizer, number = _load(arguments), 0
    for lines in _chunks(arguments.file):
        split = [[word for word in line.split(" ") if word] for line in lines]
        if arguments.ids:
            texts = tokenizer.decode([_ids(words, number + i, tokenizer) for i, words in enumerate(split, start=1)])
        else:
            texts = tokenizer.decode_pieces(split)
        number += len(lines)
        print(*texts, sep="\n", flush=True)


def _ids(words: Sequence[str], number: int, tokenizer: Tokenizer) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < len(tokenizer)):
            raise DataError(f"line {number}: {word[:20]!r} is not an id from 0 to {len(tokenizer) - 1}")
    return [int(word) for word in words]


def _stats(arguments: argparse.Namespace) -> None:
    if arguments.longest < 0:
        raise ConfigError(f"--longest {arguments.longest} must be at least 0")
    tokenizer = _load(arguments)
    found: list[dict[str, object]] = []
    for file in arguments.files:
        stats = TokenizerStats(vocab_size=len(tokenizer))
        with stage(f"counting {file}", "lines") as advance:
            counted = 0
            for stats in tokenizer_stats(tokenizer, _chunks(file), arguments.longest):
                advance(stats.lines - counted)
                counted = stats.lines
        found.append({"file": file, **stats.summary()})
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print(_table(found))


def _table(found: Sequence[dict[str, object]]) -> str:
    """A row per figure and a column per file."""
    names = [name for name in found[0] if name not in ("file", "longest_lines")]
    rows = [["", *(str(stats["file"]) for stats in found)]]
    rows += [[name.replace("_", " "), *(_shown(name, stats[name]) for stats in found)] for name in names]
    rows.append(["longest lines", *(_longest(stats["longest_lines"]) for stats in found)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2%}" if name in ("coverage", "vocabulary_used") else f"{value:.2f}"
    return f"{value:,}"


def _longest(lines: object) -> str:
    assert isinstance(lines, list)
    return ", ".join(f"{line['line']} ({line['pieces']})" for line in lines) or "-"


def _load(arguments: argparse.Namespace) -> Tokenizer:
    path = arguments.tokenizer
    if is_model_id(path):
        path = str(locate_checkpoint(path)[0])
    try:
        target, source = tokenizer_files(path, ("{lang}", "{lang}"))
    except DataError:
        target, source = tokenizer_files(str(locate_checkpoint(path)[0]), ("", ""))
    if target != source and arguments.side is None:
        raise ConfigError(f"{path}: each side has a tokenizer of its own: choose --side source or --side target")
    return load_given(source if arguments.side == "source" else target)


def _chunks(file: str) -> Iterator[list[str]]:
    source = file_input(file)
    return source.chunks(source.read(), _LINES_AT_A_TIME, _CHARACTERS_AT_A_TIME)
