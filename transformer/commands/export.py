"""Write a trained model for other engines: transformer export RUN --to FORMAT --output DIR

  own    this project's own files, without those of training, for the hub
  hf     Hugging Face: MarianMTModel and MarianTokenizer of transformers
  ct2    CTranslate2, in float32 or with --precision int8; transformer translate DIR --engine ctranslate2 uses it
  onnx   ONNX graphs of the encoder and of a decoding step
  torch  the same graphs by torch.export
  opus   Marian's own files, as OPUS-MT releases them

Each directory has a model card, README.md, with the scores of --scores, and holds all that is needed without a network.
A model that a format has no place for is refused. With --push, the directory is uploaded to the Hugging Face hub.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.cli import print_aside
from transformer.commands.outputs import check_output_directory
from transformer.commands.selection import report_checkpoint
from transformer.errors import ConfigError
from transformer.interop.card import CardOptions, read_scores
from transformer.interop.export import EXPORTERS, export
from transformer.interop.exported import Exported, check_new
from transformer.interop.publishing import check_repository, upload


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--to", required=True, choices=EXPORTERS, help="the format")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a directory that does not exist yet")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"), help="of the weights; int8: ct2 only")
    card = parser.add_argument_group("model card")
    card.add_argument("--name", help="of the model; by default that of the run")
    card.add_argument("--licence", metavar="ID", help="such as cc-by-4.0, by the hub's list of identifiers")
    card.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="what transformer evaluate RUN --json printed; may be repeated",
    )
    hub = parser.add_argument_group("hub")
    hub.add_argument("--push", metavar="OWNER/NAME", help="upload the directory to this repository of the hub")
    hub.add_argument("--private", action="store_true", help="let the repository be private if it is new")
    arguments = parser.parse_args(argv)
    if arguments.push is not None:
        check_repository(arguments.push)
    elif arguments.private:
        raise ConfigError("--private needs --push")
    check_new(arguments.output)  # before a model is loaded
    check_output_directory(arguments.output)
    exported = Exported.load(arguments.run)
    report_checkpoint(arguments.run, exported.origin)
    name = arguments.name or (arguments.push and arguments.push.partition("/")[2])
    options = CardOptions(name, arguments.licence, read_scores(arguments.scores, exported.origin))
    given = {"precision": arguments.precision, "options": options, "place": arguments.push}
    for note in export(exported, arguments.to, arguments.output, **given):
        print_aside(f"note: {note}")
    print(f"wrote {arguments.output}")
    if arguments.push is not None:
        private = True if arguments.private else None
        print(f"uploaded to {upload(arguments.output, arguments.push, private=private)}")
    return 0
