"""Describe the data of a configuration, without training: transformer data CONFIG [section.key=value ...]

Per corpus: pairs kept and dropped, with the first examples of each reason; lengths and ratios; repeated pairs; held-out
sentences that the training text contains. The tokenizer is that of the run, or that with which training would begin;
what is encoded here is kept in data.cache_dir, where training finds it. Also: transformer data --src my.en --tgt my.de
--write DIR writes the splits as files instead, without the training pairs that are held out or filtered.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.two_files import add_config_arguments, config_and_overrides
from transformer.config import Config, load_config
from transformer.config_hints import unknown_option
from transformer.data.written_splits import splits_to_write, write_splits
from transformer.errors import ConfigError
from transformer.files import expand_home
from transformer.hub import pin_data
from transformer.inspection.corpora import as_text, report_data
from transformer.progress import stage
from transformer.training.initialization import inherit


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="of each reason (default: %(default)s)")
    parser.add_argument("--write", metavar="DIR", help="write DIR/SPLIT.LANGUAGE instead, into a new directory")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError(unknown_option(unknown[0], Config().flat()))
    if arguments.examples < 0:
        raise ConfigError(f"--examples {arguments.examples} must be at least 0")
    config = pin_data(load_config(*config_and_overrides(arguments), complete=inherit))
    if arguments.write is not None:
        return _write(config, Path(expand_home(arguments.write)), as_json=arguments.json)
    report = report_data(config, arguments.examples, stage)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if arguments.json else as_text(report))
    return 0


def _write(config: Config, directory: Path, *, as_json: bool) -> int:
    languages = config.data.src_lang, config.data.tgt_lang
    numbers = write_splits(splits_to_write(config.data, directory), languages, directory)
    if as_json:
        print(json.dumps(numbers))
        return 0
    for split, number in numbers.items():
        print(f"{number:,} pairs: {' '.join(str(directory / f'{split}.{language}') for language in languages)}")
    print(f"train on them with: data.corpus={shlex.quote(f'{directory}/{{split}}.{{lang}}')}")
    return 0
