"""Draw the attention maps of a translation: transformer attend RUN "sentence" [--out FILE]

Weights of every layer and head, as an image (.png, .svg, .pdf; needs matplotlib), as numbers (.json), or as a page for
a browser (.html), which also draws lines between the words, as the figures at the end of the paper do.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.outputs import check_output
from transformer.commands.search_options import add_tag_options, choose_tag
from transformer.commands.selection import report_checkpoint
from transformer.files import write_atomic
from transformer.inference.arguments import DEVICES
from transformer.inference.translator import Translator
from transformer.inspection.attention import as_json, draw, page, sentence_attention
from transformer.inspection.canvas import THEMES, save, theme


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("sentence", help="in the source language")
    parser.add_argument("--translation", help="force this translation; default: the model's own")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("attention.html"), help="default: %(default)s")
    parser.add_argument("--theme", default="light", choices=tuple(THEMES), help="colours of an image")
    add_tag_options(parser)
    parser.add_argument("--device", default="auto", choices=DEVICES)
    arguments = parser.parse_args(argv)
    check_output(arguments.out)
    # In bf16, rows of weights would not sum to 1.
    translator = Translator.load(arguments.run, device=arguments.device, precision="fp32")
    choose_tag(arguments, translator)
    report_checkpoint(arguments.run, str(translator.origin))
    uses = sentence_attention(translator, arguments.sentence, arguments.translation)
    if write := {".html": page, ".json": as_json}.get(arguments.out.suffix):
        write_atomic(arguments.out, write(uses))
    else:
        with theme(arguments.theme):
            save(draw(uses), arguments.out)
    print(arguments.out)
    return 0
