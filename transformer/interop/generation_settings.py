"""The settings of Hugging Face's `generate` as our section `search`, and those that it does not have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from transformer.interop.marian_model import LONGEST_SOURCE, as_float

# Settings that change outputs and that our search does not have, with the values that change none.
_NOT_TAKEN: dict[str, tuple[Any, ...]] = {
    "do_sample": (False, None),
    "repetition_penalty": (1, None),
    "encoder_repetition_penalty": (1, None),
    "diversity_penalty": (0, None),
    "num_beam_groups": (1, None),
    "encoder_no_repeat_ngram_size": (0, None),
    "exponential_decay_length_penalty": (None,),
    "sequence_bias": (None, {}),
    "force_words_ids": (None,),
    "forced_bos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "suppress_tokens": ([], None),
    "begin_suppress_tokens": ([], None),
    "guidance_scale": (1, None),
}
# Settings that it has, and what they must be.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("num_beams", "max_length", "max_new_tokens", "min_length", "min_new_tokens"), (int,)),
    "no_repeat_ngram_size": (int,),
    "length_penalty": (int, float),
}


class SearchSettings(NamedTuple):
    """Keys of our section `search`, and what a user should know of the others."""

    search: dict[str, Any]
    notes: list[str]


def read_settings(
    settings: dict[str, Any], ids: dict[str, int], *, never: Collection[int | None], unknown: int, is_marian: bool
) -> SearchSettings:
    """Our search, with what the settings of a model mean there.

    Args:
        settings: of its `generation_config.json`, or where there is none of its `config.json`.
        ids: by key, as `eos_token_id`, those that the model has.
        never: ids that are never an output here.
        unknown: the id of `<unk>`.
        is_marian: whether it came from Marian, which does not put out `<unk>`, whatever the settings say.
    """
    others = [f"{name}={settings[name]!r}" for name, same in _NOT_TAKEN.items() if settings.get(name) not in same]
    others += [f"{key}={settings[key]!r}" for key, id_ in ids.items() if settings.get(key) not in (None, id_, [id_])]
    banned = settings.get("bad_words_ids") or []
    single = _single_ids(banned)
    if single is None or not single <= {*never, unknown}:
        others.append("bad_words_ids")
    others += [f"{name}={settings[name]!r}" for name, kinds in _KINDS.items() if _is_other(settings.get(name), kinds)]
    search = {
        "beam": _number(settings, "num_beams", 4),
        "alpha": as_float(_number(settings, "length_penalty", 1.0)),
        "length_penalty": "power",
        "max_length": _max_length(settings),
        "min_length": _min_length(settings),
        "no_repeat_ngram": _number(settings, "no_repeat_ngram_size", 0),
        "allow_unknown": not is_marian and unknown not in (single or ()),
        "max_source_length": LONGEST_SOURCE,
    }
    notes = [f"its generation settings {', '.join(others)} are not taken over"] if others else []
    return SearchSettings(search, notes)


def _single_ids(banned: Any) -> set[int] | None:
    """The pieces that are banned by themselves; None if there are sequences of several, or anything else."""
    if not isinstance(banned, list):
        return None
    is_single = [isinstance(ids, list) and len(ids) == 1 and type(ids[0]) is int for ids in banned]
    return {ids[0] for ids in banned} if all(is_single) else None


def _max_length(settings: dict[str, Any]) -> int:
    """With </s>, without the start, which `max_length` counts and `max_new_tokens` does not."""
    longest = _number(settings, "max_new_tokens", None)
    return max(1, _number(settings, "max_length", LONGEST_SOURCE) - 1 if longest is None else longest)


def _min_length(settings: dict[str, Any]) -> int:
    """With </s>: `min_length` counts the start instead, and `min_new_tokens` neither."""
    shortest = _number(settings, "min_new_tokens", None)
    length: int = _number(settings, "min_length", 0) if shortest is None else shortest + 1
    return length


def _number(settings: dict[str, Any], name: str, default: Any) -> Any:
    value = settings.get(name)
    return default if value is None or _is_other(value, _KINDS[name]) else value


def _is_other(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a setting is given, and no number of these kinds."""
    return value is not None and type(value) not in kinds
