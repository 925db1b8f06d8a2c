"""Keep a copy of a model from elsewhere as a checkpoint: transformer import SOURCE RUN

SOURCE is a Marian model: a directory of Hugging Face, a hub id as owner/name@revision, or OPUS-MT's own release, as a
.zip or unpacked. Every command takes SOURCE itself as well, which is then converted into a cache.
"""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from transformer.config import Config
from transformer.data.tags import list_languages
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, warn
from transformer.hub import fetch_model, is_model_id
from transformer.interop.foreign import read_model
from transformer.interop.local_files import is_foreign
from transformer.training.checkpoint import save_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="a Marian model: a directory, a .zip or a hub id")
    parser.add_argument("run", metavar="RUN", type=Path, help="the directory to write, which may not exist")
    parser.add_argument(
        "--languages", metavar="SRC-TGT", help="codes such as en-de, by which BLEU and sentence splitting go"
    )
    arguments = parser.parse_args(argv)
    languages = _languages(arguments.languages)
    if arguments.run.exists() or arguments.run.is_symlink():
        raise ConfigError(f"{arguments.run}: exists already; choose another directory")
    source, name = Path(arguments.source), arguments.source
    if is_model_id(arguments.source):
        source, name = fetch_model(arguments.source)
    if not is_foreign(source):
        raise ConfigError(
            f"{name}: no Marian model: neither a directory with config.json or decoder.yml, nor a .zip, nor the hub id "
            "of one"
        )
    model = read_model(source)
    config, tokenizer, weights = model.to_checkpoint()
    for note in model.messages:
        warn(f"{name}: {note}")
    if languages is not None:
        data = dataclasses.replace(config.data, src_lang=languages[0], tgt_lang=languages[1])
        config = dataclasses.replace(config, data=data)
    arguments.run.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(arguments.run, config, tokenizer, weights)
    print("\n".join(_summary(name, config, tokenizer, sum(weight.numel() for weight in weights.values()))))
    print(f"written to {arguments.run}")
    return 0


def _languages(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    match = re.fullmatch(r"([A-Za-z_]+)-([A-Za-z_]+)", given)
    if match is None:
        raise ConfigError(f"--languages {given}: must be two codes joined by -, such as en-de")
    return match[1], match[2]


def _summary(name: str, config: Config, tokenizer: Tokenizer, num_parameters: int) -> list[str]:
    model, data = config.model, config.data
    size, source_size = tokenizer.sizes
    lines = [
        f"{name}: {data.src_lang}-{data.tgt_lang}, {num_parameters:,} parameters",
        f"layers: {model.num_layers} of the encoder, {model.num_decoder_layers or model.num_layers} of the decoder; "
        f"d_model {model.d_model}, {model.num_heads} heads, {model.activation}",
        f"vocabulary: {size:,} pieces"
        + (" of both languages" if source_size is None else f" of the target, {source_size:,} of the source"),
    ]
    if data.target_tags:
        lines.append(f"target languages, for --target-language: {list_languages(data.target_tags)}")
    return lines
