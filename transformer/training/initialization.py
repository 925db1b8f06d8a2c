"""Starting a run from trained weights: `train.init_from`.

The source is read while the run has no checkpoint of its own, and never again. What it was stands in
`initialization.json` of the run, and in the first line of `starts.jsonl`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from transformer.config import Config, DataConfig
from transformer.data.tokenizer import EOS_ID, SOURCE_FILE, TARGET_FILE, Tokenizer
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import CheckpointError, ConfigError, warn
from transformer.files import expand_home, is_locked, write_atomic
from transformer.hub import is_model_id
from transformer.model.transformer import Transformer
from transformer.sections.types import TokenizerType
from transformer.training import integrity
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint
from transformer.training.claim import Claim
from transformer.training.run_directory import INITIALIZATION, checkpoints, saved_config, step_of
from transformer.training.run_keys import yaml_value

# Of the section data, besides those of the tokenizer. The tag is inherited unless there are corpora without it.
_DATA_KEYS = ("src_lang", "tgt_lang", "max_length", "tag")
_SIZE_KEYS = ("vocab_size", "separate_vocabularies", "source_vocab_size")
_TOKENIZER_KEYS = (
    *("normalization", "character_coverage", "byte_fallback", "tokenizer_type", "user_symbols"),
    "target_tags",
)
# Parameters with a row per piece, and whether their pieces are of the source where it has a vocabulary of its own.
_EMBEDDINGS = {
    "embedding.weight": True,
    "embedding.target_weight": False,
    "embedding.projection_weight": False,
    "embedding.output_bias": False,
}


class Kept(NamedTuple):
    """Rows of an embedding matrix: pieces that both vocabularies have, and new ones."""

    kept: int
    new: int


def inherit(values: dict[str, Any]) -> None:
    """Complete a configuration with `train.init_from` by what its checkpoint says; for `load_config`.

    Keys of the model, the tokenizer and the languages, `data.max_length` and `data.tag`, that are left out get the
    values of the checkpoint; in a run that has begun, those of the run. UserError if there is no such checkpoint.
    """
    add_inherited(values, inherited(values))


def add_inherited(values: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    """Put keys of sections into values that leave them out."""
    for section, keys in found.items():
        given = values.get(section)
        if given is None or isinstance(given, dict):  # else an error that `load_config` reports
            values[section] = {**keys, **(given or {})}


def inherited(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys by section that a configuration with `train.init_from` may leave out; none without it."""
    train = values.get("train")
    source, run_dir = train.get("init_from") if isinstance(train, dict) else None, values.get("run_dir")
    if not source or not isinstance(source, str) or not isinstance(run_dir, str):
        return {}
    try:
        source, run = expand_home(source), Path(expand_home(run_dir))
    except ValueError:  # no home directory, which `load_config` reports
        return {}
    if checkpoints(run / "checkpoints") and (run / "config.yaml").is_file():
        before = saved_config(run)
        if before.train.init_from is not None:  # else the run is refused, for beginning otherwise
            return _inheritable(before)
    _check_foreign(source, run)
    directory, _ = locate_checkpoint(source)
    config = saved_config(directory)
    tokenizer = load_tokenizer(directory, is_separate=config.data.separate_vocabularies)
    found = _inheritable(dataclasses.replace(config, data=_described(config.data, tokenizer)))
    given = values.get("data")
    if isinstance(given, dict):
        if given.get("tokenizer") is not None:  # another one than the checkpoint's
            found["data"] = {name: value for name, value in found["data"].items() if name in _DATA_KEYS}
        if given.get("separate_vocabularies") is False:  # the key that is refused, and not one that it excludes
            found["data"].pop("source_vocab_size", None)
        if given.get("corpora") and not _has_tag(given["corpora"], tag := found["data"]["tag"]):
            del found["data"]["tag"]
            if tag is not None and "tag" not in given:
                warn(
                    f"train.init_from={source} has data.tag={tag}, which no corpus of data.corpora has, so it is not "
                    f"inherited; data.tag={tag} keeps it, data.tag=null is none"
                )
    return found


def _has_tag(corpora: Any, tag: str | None) -> bool:
    """Whether an entry of `data.corpora`, not yet checked, has a tag."""
    entries = corpora if isinstance(corpora, list) else [corpora]
    return tag is not None and any(isinstance(entry, dict) and entry.get("tag") == tag for entry in entries)


def _described(data: DataConfig, tokenizer: Tokenizer) -> DataConfig:
    """The section as if the run had trained this tokenizer, which may be from elsewhere."""
    kind = {"tokenizer_type": tokenizer.type} if tokenizer.type in get_args(TokenizerType) else {}
    sizes = {"vocab_size": len(tokenizer), "source_vocab_size": tokenizer.sizes[1]}
    return dataclasses.replace(data, tokenizer=None, **sizes, **kind)  # type: ignore[arg-type]


def _inheritable(config: Config) -> dict[str, dict[str, Any]]:
    names = (*_SIZE_KEYS, *_TOKENIZER_KEYS, *_DATA_KEYS)
    return {"model": dataclasses.asdict(config.model), "data": {name: getattr(config.data, name) for name in names}}


def _check_foreign(source: str, run: Path) -> None:
    """ConfigError if a run is to begin with weights of its own directory."""
    if not is_model_id(source) and Path(source).resolve().is_relative_to(run.resolve()):
        raise ConfigError(
            f"train.init_from={source}: is in run_dir={run} itself; a run goes on from its last checkpoint without "
            "init_from, and a new one needs another run_dir"
        )


def claim_with_tokenizer(config: Config, *, change: bool = False) -> Claim:
    """Claim a run; a new one gets the tokenizer of the checkpoint with which it begins.

    Errors as of `Claim`; UserError if there is no such checkpoint, or it is of another model.
    """
    source, run = config.train.init_from, Path(config.run_dir)
    if source is None:
        return Claim(config, change=change)
    _check_foreign(source, run)
    if checkpoints(run / "checkpoints"):
        return Claim(config, change=change)
    directory, _ = locate_checkpoint(source)
    there = saved_config(directory)
    tokenizer = load_tokenizer(directory, is_separate=there.data.separate_vocabularies)
    _check_config(source, there, config, tokenizer)
    claimed = Claim(config, change=change)
    copy_tokenizer(config, run)
    return claimed


def copy_tokenizer(config: Config, directory: Path) -> None:
    """Write the tokenizer of `train.init_from` to a directory.

    If a new run begins with it, and not with `data.tokenizer`.
    """
    if config.train.init_from is None or config.data.tokenizer is not None:
        return
    checkpoint, _ = locate_checkpoint(config.train.init_from)
    for name in (SOURCE_FILE, TARGET_FILE):
        if (checkpoint / name).is_file():
            write_atomic(directory / name, (checkpoint / name).read_bytes())


def _check_config(source: str, there: Config, here: Config, tokenizer: Tokenizer) -> None:
    """ConfigError, with the values to set, if the model or its tokenizer is described otherwise."""
    before, now = there.model.computed(), here.model.computed()
    wanted = {f"model.{name}": getattr(there.model, name) for name in now if before[name] != now[name]}
    if here.data.tokenizer is None:
        described = _described(there.data, tokenizer)
        for name in (*_SIZE_KEYS, *_TOKENIZER_KEYS):
            value = getattr(described, name)
            # The corpus may have had fewer pieces than asked for.
            accepted = (value, getattr(there.data, name)) if name in _SIZE_KEYS else (value,)
            if getattr(here.data, name) not in accepted:
                wanted[f"data.{name}"] = [*value] if isinstance(value, tuple) else value
    if wanted:
        values = " ".join(f"{key}={yaml_value(value)}" for key, value in wanted.items())
        raise ConfigError(
            f"train.init_from={source}: its model and tokenizer are described otherwise; leave these keys out or set "
            f"{values}"
        )


def initialize(config: Config, model: Transformer, tokenizer: Tokenizer) -> list[str]:
    """Give the model of a new run the weights of `train.init_from`; returns lines for the user.

    Draws no random numbers: pieces that the checkpoint does not have keep the rows that the model was built with.
    UserError as of `claim_with_tokenizer`.
    """
    source, record = config.train.init_from, Path(config.run_dir) / INITIALIZATION
    if source is None:
        record.unlink(missing_ok=True)  # of an earlier start, which had another configuration
        return []
    is_used = not is_model_id(source) and is_locked(Path(source) / ".lock")
    try:
        name, there, before, weights, digest = _read(source)
    except CheckpointError:
        if not is_used:
            raise
        name, there, before, weights, digest = _read(source)  # its training may have removed what was found
    _check_config(source, there, config, before)
    rows = adapt_vocabulary(weights, model.state_dict(), before, tokenizer)
    model.load_state_dict(weights)
    for key, kept in rows.items():
        if kept.new and not model.get_parameter(key).requires_grad:
            warn(f"train.freeze: {key} is not trained, so {kept.new:,} pieces new to the checkpoint stay random")
    started = {"init_from": source, "checkpoint": name, **_steps(name), "sha256": digest}
    _report_change(record, started)
    write_atomic(record, json.dumps(started | {"rows": {key: kept._asdict() for key, kept in rows.items()}}) + "\n")
    note = "; the run is in use, and may have a newer one later" if is_used else ""
    return [f"initial weights: {name} (SHA-256 {digest[:12]}){note}", *_in_words(rows)]


def _read(source: str) -> tuple[str, Config, Tokenizer, dict[str, Tensor], str]:
    """Name, configuration, tokenizer, weights and SHA-256 of a checkpoint."""
    directory, name = locate_checkpoint(source)
    path = directory / "model.safetensors"
    try:
        digest = integrity.sha256(path)
        config, tokenizer, model = load_checkpoint(directory)
        is_same = integrity.sha256(path) == digest
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not is_same:
        raise CheckpointError(f"{path}: was replaced while it was read; run the same command again")
    return name, config, tokenizer, model.state_dict(), digest


def _steps(name: str) -> dict[str, Any]:
    """The updates of a checkpoint, as far as they are known; of an average those of its parts."""
    step, steps = step_of(Path(name)), integrity.averaged_steps(Path(name) / "model.safetensors")
    return {"averaged_steps": steps} if steps else {"step": step if step >= 0 else None}


def _report_change(record: Path, now: dict[str, Any]) -> None:
    """Warn if the source has changed since a start of this run that left no checkpoint."""
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        is_changed = before["init_from"] == now["init_from"] and before["sha256"] != now["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if is_changed:
        warn(
            f"train.init_from={now['init_from']}: other weights than at an earlier start of this run "
            f"({before.get('checkpoint')} then, {now['checkpoint']} now); the run begins anew with those of now"
        )


def adapt_vocabulary(
    weights: dict[str, Tensor], initial: dict[str, Tensor], before: Tokenizer, now: Tokenizer
) -> dict[str, Kept]:
    """Bring embeddings and output bias into the order of another tokenizer's pieces.

    Special pieces are matched by id, others by text. Where each side has a vocabulary of its own, source embeddings
    follow that of the source.

    Args:
        weights: of the checkpoint, by name; changed in place. Matrices (V, D) become (V', D), the bias (V,) (V',).
        initial: of the new model: the rows (V', D) of pieces that `before` does not have.
        before, now: tokenizers of V and of V' pieces.

    Returns:
        How many rows are kept and new, by matrix; empty if the vocabularies are equal.
    """
    rows: dict[str, Kept] = {}
    for name, is_source in _EMBEDDINGS.items():
        if name not in weights:
            continue
        # A single matrix is of both sides, whose vocabulary is then a joint one.
        is_separate = is_source and "embedding.target_weight" in weights
        old, new = (_pieces(one.source if is_separate else one) for one in (before, now))
        if old == new:
            continue
        ids = {piece: number for number, piece in enumerate(old)}
        pairs = [(ids[piece], number) for number, piece in enumerate(new) if piece in ids]
        from_ids, to_ids = torch.tensor(pairs).T
        matrix = initial[name].detach().clone()
        matrix[to_ids.to(matrix.device)] = weights[name][from_ids].to(matrix)
        weights[name] = matrix
        rows[name] = Kept(len(pairs), len(new) - len(pairs))
    return rows


def _pieces(tokenizer: Tokenizer) -> list[str | int]:
    """What each row stands for: an id for special pieces, which may be spelt otherwise, and text."""
    pieces: Sequence[str] = tokenizer.pieces(range(len(tokenizer)))
    return [*range(EOS_ID + 1), *pieces[EOS_ID + 1 :]]


def _in_words(rows: dict[str, Kept]) -> list[str]:
    matrices = (
        f"{name}: {one.kept:,} of {one.kept + one.new:,} rows kept, {one.new:,} new" for name, one in rows.items()
    )
    return [f"vocabulary: another than the checkpoint's; {'; '.join(matrices)}"] if rows else []
