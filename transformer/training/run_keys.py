"""Which keys may differ from those of an existing run, and how differences are told."""

from collections.abc import Collection
from typing import Any

import yaml

from transformer.config import Config, TrainConfig

# Keys that may change when a run is resumed: when to log, validate, save and stop and where to compute.
FREE_KEYS = {
    "run_dir",
    "data.bleu_tokenizer",
    *("data.cache_dir", "data.revision", "data.test_split"),  # other data would have another fingerprint
    "data.also_validate",
    *("train.max_steps", "train.max_hours", "train.patience", "train.skip_nonfinite"),
    *("train.log_steps", "train.validate_steps", "train.validation_bleu", "train.best_by"),
    *("train.save_steps", "train.save_minutes", "train.keep_checkpoints"),
    *("train.device", "train.deterministic", "train.num_threads", "train.gradient_checkpointing"),
    *("train.packed", "train.compile"),
    *("search.beam", "search.alpha", "search.length_penalty", "search.no_repeat_ngram", "search.allow_unknown"),
    *("search.max_length_offset", "search.max_length", "search.min_length", "search.max_source_length"),
    "train.decay_steps",  # where the schedule ends may not change: `other_end`
}

# Keys that may change besides with --change: they shape the result, but fit weights and data that there are.
CHANGEABLE_KEYS = {
    "seed",
    *("model.dropout", "model.attention_dropout", "model.activation_dropout"),
    *("train.batching", "train.tokens_per_update", "train.max_tokens"),
    *("train.label_smoothing", "train.freeze", "train.precision"),
    *("train.schedule", "train.learning_rate", "train.min_learning_rate"),
    *("train.warmup_steps", "train.lr_factor", "train.weight_decay", "train.clip_norm"),
    *("train.adam_beta1", "train.adam_beta2", "train.adam_eps", "train.ema_decay"),
    *("data.subword_dropout", "data.subword_alpha", "data.subword_sides"),  # the pairs of an update stay the same
}

# Where the data are: another place is as good if the data found there have the fingerprints of the run.
PLACE_KEYS = (
    *("data.corpus", "data.corpora", "data.subset", "data.train_split", "data.validation_split"),
    "data.tokenizer",
)
_GENERATED = ("builtin", "treebank")  # have no place


def differing_keys(before: Config, now: Config, ignored: Collection[str] = ()) -> list[str]:
    """`key: value there, value here` for each key with another value."""
    return [
        f"{key}: {yaml_value(there)} there, {yaml_value(here)} here"
        for key, (there, here) in changed_values(before, now, now.flat().keys() - set(ignored)).items()
    ]


def other_end(before: TrainConfig, now: TrainConfig) -> list[str]:
    """Likewise for the update at which the schedule ends, which `max_steps` sets if `decay_steps` does not."""
    if before.schedule != now.schedule or before.decay_end == now.decay_end:
        return []
    ends = f"{before.decay_end} there, {now.decay_end} here"
    if now.decay_steps is not None:
        return [f"train.decay_steps: {ends}"]
    return [
        f"train.max_steps: {ends}, where train.schedule={now.schedule} ends; train.decay_steps={before.decay_end} "
        "keeps the schedule of the run"
    ]


def changed_values(before: Config, now: Config, keys: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Both values of each of these keys that differs."""
    there, here = before.flat(), now.flat()
    changed = {key: (there[key], here[key]) for key in here if key in keys and there[key] != here[key]}
    if before.train.padded_tokens == now.train.padded_tokens:  # null and its value, once the default
        changed.pop("train.max_tokens", None)
    return changed


def moved_places(before: Config, now: Config) -> list[str]:
    """The differing keys that say where the data are.

    None if data of the built-in grammar are involved.
    """
    if before.data.corpus in _GENERATED or now.data.corpus in _GENERATED:
        return []
    if _uses(before) != _uses(now):
        return []
    return differing_keys(before, now, now.flat().keys() - set(PLACE_KEYS))


def _uses(config: Config) -> list[tuple[float, str | None]]:
    """Weight and tag of each training corpus, which no other place changes."""
    data = config.data
    return [(entry.weight, entry.tag) for entry in data.corpora] or [(1.0, data.tag)]


def yaml_value(value: object) -> str:
    """A value as written after `key=`."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
