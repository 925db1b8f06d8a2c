"""Documents on the command line: transformer translate RUN FILE.docx --output OUT.docx"""

import argparse
import sys
from pathlib import Path, PurePath

from tqdm import tqdm

from transformer.commands.engine import check_engine_options, check_engine_output, check_engine_search, load_engine
from transformer.commands.search_options import apply_search_options, origins
from transformer.commands.selection import report_checkpoint
from transformer.data.compression import COMPRESSION_SUFFIXES
from transformer.documents.formats import (
    FORMATS,
    MOST_BYTES,
    DocumentNotes,
    Translate,
    Translated,
    format_of,
    functions_of,
    is_unread,
    translate_document,
)
from transformer.errors import ConfigError, DataError
from transformer.files import write_atomic
from transformer.inference.alignment import checked_layer, single_model
from transformer.inference.line_input import file_input
from transformer.inference.sources import InputNotes
from transformer.inference.translator import Translator
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext

_BINARY = ("docx",)
# Options for lines, with the values that they have if they are not given.
_OF_LINES = {
    **{"nbest": 1, "scores": False, "json": False, "token_scores": False, "alignment": False},
    **{"prefix": None, "prefix_file": None, "constraints": None, "sample": False},
}


def add_format_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that `chosen_format` reads."""
    parser.add_argument(
        "--format",
        choices=("lines", *FORMATS),
        help="of FILE: lines, or a document; default: as the name says, .srt, .html, .docx and the like, else lines",
    )


def chosen_format(arguments: argparse.Namespace) -> str | None:
    """The format of a document, or None for lines. ConfigError for options that a document does not have."""
    form = arguments.format or format_of(arguments.file or "")
    path = PurePath(arguments.file or "")
    if form is None and path.suffix in COMPRESSION_SUFFIXES and format_of(path.stem) is not None:
        raise ConfigError(
            f"{path}: unpack it first, or choose --format lines, with which each line of it is translated"
        )
    if form is None and (arguments.text is None and is_unread(str(path))):
        raise ConfigError(
            f"{path}: documents of this kind are not read, only .srt, .html and .docx; save it as one of them, or "
            "choose --format lines, with which each line of it is translated"
        )
    if form is None and arguments.output is not None and (made := format_of(str(arguments.output))) is not None:
        raise ConfigError(
            f"--output {arguments.output}: the input is read as lines; give --format {made} if it is a document, and "
            "--format lines if it is not"
        )
    if form is None or form == "lines":
        return None
    if arguments.text is not None:
        raise ConfigError(f"--format {form} is of FILE; --text is a line")
    for option, default in _OF_LINES.items():
        if getattr(arguments, option) != default:
            raise ConfigError(
                f"--{option.replace('_', '-')} is for lines, and this is a document (--format {form}); with --format "
                "lines, each line of FILE is one"
            )
    check_engine_options(arguments)
    if arguments.output is None and form in _BINARY:
        raise ConfigError(f"a translated .{form} is no text to print: give --output FILE.{form}")
    if arguments.output is not None and format_of(str(arguments.output)) not in (None, form):
        raise ConfigError(f"--output {arguments.output}: the translation has the format of FILE, {form}")
    return form


def translate_file(arguments: argparse.Namespace, form: str, context: DistributedContext) -> int:
    """Translate FILE, a document, to --output or to standard output."""
    if context.is_main and arguments.output is not None:
        inputs = [Path(arguments.file)] if arguments.file not in (None, "-") else []
        check_engine_output(arguments, inputs)
    # All processes take the same steps, each on the whole document.
    data = context.broadcast_from_main(lambda: _read(arguments.file or "-"))
    tune_process(inference=True)
    translator = load_engine(arguments)
    apply_search_options(arguments, translator)
    check_engine_search(arguments, translator)
    translator.context = context
    layer = arguments.alignment_layer
    if layer is not None:
        checked_layer(single_model(translator), layer, "--alignment-layer")
    if context.is_main:
        for given, origin in zip([arguments.run, *arguments.ensemble], origins(translator), strict=True):
            report_checkpoint(given, origin)
    notes, read = DocumentNotes(), InputNotes()
    translate, align = functions_of(translator, alignment_layer=layer)
    translate = _watched(translator, translate, read)
    try:
        made = translate_document(data, form, translate, align, languages=translator.languages, notes=notes)
    except DataError as error:
        raise DataError(f"{arguments.file or 'standard input'}: {error}") from None
    if context.is_main:
        _write(made, arguments.output)
        for message in (*notes.messages(), *_messages(read)):
            print(message, file=sys.stderr)
    return 0


def _messages(notes: InputNotes) -> list[str]:
    """What a user should know of how sentences were read; their numbers would say nothing."""
    kinds = {
        "without a known word: left as in the source": notes.copied,
        "of mostly unknown words: a doubtful translation": notes.doubtful,
        "with unknown characters: translated with the unknown piece for them": notes.unknown,
        "beyond the limit: cut": notes.truncated,
    }
    return [f"{len(numbers)} of {notes.num_lines} sentences {what}" for what, numbers in kinds.items() if numbers]


def _read(file: str) -> bytes:
    """The bytes of a file or of standard input, at most one more than a document may have."""
    if file == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    path = file_input(file).path or Path(file)
    with path.open("rb") as stream:
        return stream.read(MOST_BYTES + 1)


def _write(made: bytes, output: Path | None) -> None:
    if output is not None:
        write_atomic(output, made)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()


def _watched(translator: Translator, translate: Translate, notes: InputNotes) -> Translate:
    """The same with notes of what is read, and with a bar on a terminal."""

    def shown(sentences: list[str]) -> list[Translated | str]:
        is_shown = translator.context.is_main and sys.stderr.isatty()
        with tqdm(total=len(sentences), unit=" sentences", dynamic_ncols=True, disable=not is_shown) as bar:

            def advance(number: int) -> None:
                bar.update(number)

            translator.progress, translator.notes = advance, notes
            found = list(translate(sentences))
            translator.progress = translator.notes = None
        return found

    return shown
