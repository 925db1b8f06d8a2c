"""Describe the data of a configuration, without training: transformer data CONFIG [section.key=value ...]

Per corpus: pairs kept and dropped, with the first examples of each reason; lengths and ratios; repeated pairs; held-out
sentences that the training text contains. The tokenizer is that of the run, or that with which training would begin;
what is encoded here is kept in data.cache_dir, where training finds it. Also: transformer data --src my.en --tgt my.de
"""

import argparse
import json
from collections.abc import Sequence

from transformer.commands.two_files import add_config_arguments, config_and_overrides
from transformer.config import Config, load_config
from transformer.config_hints import unknown_option
from transformer.errors import ConfigError
from transformer.hub import pin_data
from transformer.inspection.corpora import as_text, report_data
from transformer.progress import stage
from transformer.training.initialization import inherit


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="of each reason (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError(unknown_option(unknown[0], Config().flat()))
    if arguments.examples < 0:
        raise ConfigError(f"--examples {arguments.examples} must be at least 0")
    config = pin_data(load_config(*config_and_overrides(arguments), complete=inherit))
    report = report_data(config, arguments.examples, stage)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if arguments.json else as_text(report))
    return 0
