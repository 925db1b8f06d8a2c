"""Configuration: the paper's defaults, precedence, renamed keys, and an error for every mistake."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import yaml

from transformer import config_file, config_hints
from transformer.config import Config, DataConfig, ModelConfig, SearchConfig, TrainConfig, load_config, override
from transformer.config_file import RENAMED_KEYS
from transformer.errors import ConfigError, UserError
from transformer.model.alternatives.build import build_model
from transformer.shipped import shipped_configs
from transformer.training.trainer import Trainer

FORMAT_1 = Path(__file__).parent / "checkpoints" / "format_1"
SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "search": SearchConfig}


def load(tmp_path: Path, text: str = "", *overrides: str) -> Config:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def hints() -> dict[str, Any]:
    """The type of every key, such as `train.max_steps: int`."""
    found: dict[str, Any] = {"run_dir": str, "seed": int}
    for section, cls in SECTIONS.items():
        found |= {f"{section}.{name}": hint for name, hint in typing.get_type_hints(cls).items()}
    return found


HINTS = hints()


def is_nullable(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def base_type(hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        return Literal
    return typing.get_args(hint)[0] if is_nullable(hint) else hint


def keys_of(wanted: Any) -> list[str]:
    return [key for key, hint in HINTS.items() if base_type(hint) is wanted]


def as_yaml(key: str, value: Any) -> str:
    section, _, name = key.rpartition(".")
    return yaml.safe_dump({section: {name: value}} if section else {name: value})


# Defaults


def test_defaults_are_the_papers_base_model_and_recipe() -> None:
    config = Config()
    paper = {
        "model.d_model": 512,
        "model.num_layers": 6,
        "model.num_decoder_layers": None,
        "model.num_heads": 8,
        "model.num_kv_heads": None,
        "model.d_ff": 2048,
        "model.activation": "relu",
        "model.d_k": None,
        "model.d_v": None,
        "model.dropout": 0.1,
        "model.attention_dropout": 0.0,
        "model.activation_dropout": 0.0,
        "model.attention_bias": False,
        "model.norm": "post",
        "model.tie": "all",
        "model.positional": "sinusoidal",
        "data.vocab_size": 37000,
        "train.tokens_per_update": 25000,
        "train.label_smoothing": 0.1,
        "train.warmup_steps": 4000,
        "data.also_validate": [],
        "train.ema_decay": None,
        "train.schedule": "noam",
        "train.lr_factor": 1.0,
        "train.learning_rate": None,
        "train.min_learning_rate": 0.0,
        "train.decay_steps": None,
        "train.adam_beta1": 0.9,
        "train.adam_beta2": 0.98,
        "train.adam_eps": 1e-9,
        "train.weight_decay": 0.0,
        "train.clip_norm": None,
        "train.max_steps": 100_000,
        "search.beam": 4,
        "search.alpha": 0.6,
        "search.max_length_offset": 50,
    }
    flat = config.flat()
    assert {key: flat[key] for key in paper} == paper


def test_an_empty_file_gives_the_defaults_in_a_run_named_after_it(tmp_path: Path) -> None:
    assert load(tmp_path) == Config(run_dir="runs/mine")


def test_the_run_directory_of_the_file_or_the_override_comes_before_its_name(tmp_path: Path) -> None:
    assert load(tmp_path, "run_dir: somewhere/else").run_dir == "somewhere/else"
    assert load(tmp_path, "run_dir: somewhere/else", "run_dir=third/place").run_dir == "third/place"


@pytest.mark.parametrize("name", ["runs/x #2", "#2", "runs #", "x#y"])
def test_a_number_sign_in_an_override_begins_no_comment(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, "", f"run_dir={name}").run_dir == name
    assert load(tmp_path, "", f"run_dir='{name}'").run_dir == name


def test_a_path_that_the_locale_has_no_letters_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("ascii"))
    with pytest.raises(ConfigError, match=r"run_dir='Läufe' cannot be written in this locale \(ascii\): use UTF-8"):
        load(tmp_path, "", "run_dir=Läufe")


@pytest.mark.parametrize(
    ("name", "run_dir"), [("a.yaml", "a"), ("a.yml", "a"), ("exp.lr1", "exp.lr1"), ("exp.lr1.yaml", "exp.lr1")]
)
def test_only_the_suffix_of_yaml_is_left_out_of_the_runs_name(tmp_path: Path, name: str, run_dir: str) -> None:
    (tmp_path / name).touch()
    assert load_config(tmp_path / name).run_dir == f"runs/{run_dir}"


def test_the_run_is_named_without_the_directories_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep.down" / "my.best.yaml"
    path.parent.mkdir()
    path.write_text("seed: 3")
    assert load_config(str(path)).run_dir == "runs/my.best"


def test_the_file_beats_the_default_and_the_override_beats_the_file(tmp_path: Path) -> None:
    text = "seed: 3\nmodel: {d_ff: 101, num_layers: 5}\n"
    config = load(tmp_path, text, "model.d_ff=103", "train.warmup_steps=7")
    assert config == Config(
        run_dir="runs/mine",
        seed=3,  # the file's
        model=ModelConfig(d_ff=103, num_layers=5),  # the override's, the file's
        train=TrainConfig(warmup_steps=7),  # the override's, in a section that the file lacks
    )


def test_the_last_of_two_overrides_of_a_key_holds(tmp_path: Path) -> None:
    assert load(tmp_path, "", "seed=3", "seed=5").seed == 5


def test_the_sections_are_those_of_the_command_lines_keys() -> None:
    assert set(Config().flat()) == set(HINTS)


# Values


def test_overrides_are_read_as_yaml(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "train: {save_minutes: 3}",
        "train.save_minutes=null",
        "train.validation_bleu=false",
        "train.adam_eps=1.0e-7",
        "data.subset=null",
        "data.src_lang='no'",
        "model.norm=pre",
    )
    assert config.train.save_minutes is None
    assert config.train.validation_bleu is False
    assert config.train.adam_eps == 1e-7
    assert config.data.subset is None
    assert config.data.src_lang == "no"
    assert config.model.norm == "pre"


@pytest.mark.parametrize(
    "pattern",
    [
        "a/{split}.{lang}.gz",
        "{split}.{lang}",
        "{split}",
        "{split}/{lang}.txt",
        "[odd] name.{lang}",
        "[odd]",
        "with = sign.{lang}",
        "C: drive",
        "@work/{split}.jsonl",
    ],
)
def test_an_override_that_is_not_a_yaml_value_is_text(tmp_path: Path, pattern: str) -> None:
    assert load(tmp_path, "", f"data.corpus={pattern}").data.corpus == pattern


@pytest.mark.parametrize("key", ["run_dir", "data.corpus", "data.cache_dir"])
def test_a_leading_tilde_of_a_path_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("HOME", "/home/mine")
    assert load(tmp_path, "", f"{key}=~/x~").flat()[key] == "/home/mine/x~"
    assert load(tmp_path, as_yaml(key, "~no-such-user/x")).flat()[key] == "~no-such-user/x"
    assert load(tmp_path, "", f"{key}=~").flat()[key] == "/home/mine"

    def expanduser(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(
        ConfigError, match=rf"^{key}='~/x' begins with ~, and no home directory is known: write the dir"
    ):
        load(tmp_path, "", f"{key}=~/x")


def test_an_empty_override_is_the_empty_text(tmp_path: Path) -> None:
    assert load(tmp_path, "", "data.cache_dir=").data.cache_dir == ""


def test_a_whole_number_is_a_number_and_becomes_a_float(tmp_path: Path) -> None:
    lr_factor = load(tmp_path, "train: {lr_factor: 3}").train.lr_factor
    assert lr_factor == 3.0
    assert type(lr_factor) is float
    max_ratio = load(tmp_path, "data: {max_ratio: 2}").data.max_ratio
    assert type(max_ratio) is float


@pytest.mark.parametrize("key", [key for key, hint in HINTS.items() if is_nullable(hint)])
def test_null_is_accepted_where_a_value_may_be_missing(tmp_path: Path, key: str) -> None:
    assert load(tmp_path, as_yaml(key, None)).flat()[key] is None


@pytest.mark.parametrize("key", [key for key, hint in HINTS.items() if not is_nullable(hint)])
def test_null_is_refused_where_a_value_is_needed(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}.*None"):
        load(tmp_path, as_yaml(key, None))


@pytest.mark.parametrize(
    ("wanted", "wrong"),
    [
        (int, [True, False, 3.0, "3", [3], {"a": 3}]),
        (float, [True, False, "three", [0.3], {"a": 0.3}]),
        (bool, [0, 1, 1.0, "yes please", [True]]),
        (str, [3, 0.3, True, ["a"], {"a": "b"}]),
        (Literal, [3, True, False, "nonsense", "", ["post"], {"post": 1}]),
    ],
)
def test_values_of_another_type_are_refused_for_every_key(tmp_path: Path, wanted: Any, wrong: list[Any]) -> None:
    keys = keys_of(wanted)
    assert keys
    for key in keys:
        for value in wrong:
            with pytest.raises(ConfigError, match=rf"^{re.escape(key)}") as caught:
                load(tmp_path, as_yaml(key, value))
            assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: true", "seed must be a whole number, got True"),
        ("seed: 3.0", r"seed must be a whole number, got 3\.0"),
        ("train: {lr_factor: true}", r"train\.lr_factor must be a number, got True$"),
        ("train: {validation_bleu: 1}", r"train\.validation_bleu must be true or false, got 1"),
        ("data: {src_lang: no}", r"data\.src_lang must be text, got False"),
        ("model: {d_k: 3.5}", r"model\.d_k must be a whole number, got 3\.5"),
        ("data: {max_ratio: wide}", r"data\.max_ratio must be a number, got 'wide'$"),
        ("model: {norm: middle}", r"model\.norm='middle' is not one of post, pre"),
        ("model: {norm: no}", r"model\.norm=False is not one of post, pre"),
        ("model: {tie: [all]}", r"model\.tie=\['all'\] is not one of all, decoder, none"),
        (
            "model: {positional: fourier}",
            r"model\.positional='fourier' is not one of sinusoidal, learned, shaw, t5, alibi, rotary, none$",
        ),
        ("model: {attention_score: mlp}", r"model\.attention_score='mlp' is not one of scaled_dot, dot, general, add"),
        ("model: {activation: tanh}", r"model\.activation='tanh' is not one of relu, gelu, swish$"),
        ("train: {device: tpu}", r"train\.device='tpu' is not one of auto, cpu, cuda"),
        ("train: {precision: half}", r"train\.precision='half' is not one of auto, fp32, tf32, bf16, fp16$"),
    ],
)
def test_type_errors_name_the_key_the_value_and_what_is_accepted(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("written", ["1e-9", "1e9", "3e-4", "1.5e3", "1E-5", ".5e-3", "+1e-9", "2.e3"])
def test_a_number_is_one_in_every_notation(tmp_path: Path, written: str) -> None:
    for attempt in ((f"train: {{adam_eps: {written}}}",), ("", f"train.adam_eps={written}")):
        assert load(tmp_path, *attempt).train.adam_eps == float(written)


@pytest.mark.parametrize("written", ["inf", ".inf", "+inf"])
def test_infinity_switches_a_limit_off_however_it_is_written(tmp_path: Path, written: str) -> None:
    for attempt in ((f"train: {{clip_norm: {written}}}",), ("", f"train.clip_norm={written}")):
        assert load(tmp_path, *attempt).train.clip_norm == float("inf")
    with pytest.raises(ConfigError, match=r"^train\.adam_eps=inf must be finite$"):
        load(tmp_path, "", f"train.adam_eps={written}")


@pytest.mark.parametrize("written", ["1e", "e5", "1e-", "nan", "1_0", "one", "1,5", "0x1p3", "١", "1e5 "])
def test_what_is_no_decimal_number_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(ConfigError, match=r"^train\.adam_eps must be a number, got "):
        TrainConfig(adam_eps=written)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^train\.max_steps must be a whole number, got '1e5'$"):
        load(tmp_path, "", "train.max_steps=1e5")


# What YAML takes for something else than text.
WORDS = ["no", "on", "off", "yes", "true", "2024", "1e5", "1.5", "2024-01-01", "0100", "1:30", "~", "[a]", "a: b", "#"]


@pytest.mark.parametrize("word", [*WORDS, "null", "it's", "a'b'", "&x", "*x", "!x", "%", "@x", "x #1"])
def test_for_a_text_key_what_stands_after_the_equals_sign_is_the_text(tmp_path: Path, word: str) -> None:
    config = load(tmp_path, "", f"run_dir={word}", f"data.src_lang={word}", f"data.cache_dir={word}")
    path = str(Path.home()) if word == "~" else word
    assert (config.run_dir, config.data.src_lang, config.data.cache_dir) == (path, word, path)
    if word != "null":
        assert load(tmp_path, "", f"data.revision={word}").data.revision == word


@pytest.mark.parametrize("written", ["'no'", '"no"', " no "])
def test_quotes_and_spaces_around_the_text_are_not_part_of_it(tmp_path: Path, written: str) -> None:
    assert load(tmp_path, "", f"data.src_lang={written}").data.src_lang == "no"


def test_null_is_none_where_a_text_may_be_missing_and_quoted_the_word(tmp_path: Path) -> None:
    assert load(tmp_path, "", "data.subset=null").data.subset is None
    assert load(tmp_path, "", "data.subset='null'").data.subset == "null"
    assert load(tmp_path, "", "data.subset=").data.subset == ""


def test_a_word_of_a_choice_is_read_as_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.norm='no' is not one of post, pre$"):
        load(tmp_path, "", "model.norm=no")


@pytest.mark.parametrize(
    "word", [word for word in WORDS if word not in ("1e5", "~", "[a]", "a: b", "#", "0100", "1:30")]
)
def test_in_a_file_such_words_are_refused_with_the_mend(tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.src_lang must be text, got .*; in YAML, put quotes around it$"):
        load(tmp_path, f"data: {{src_lang: {word}}}")
    assert load(tmp_path, f"data: {{src_lang: '{word}'}}").data.src_lang == word


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    config = TrainConfig(
        max_steps=np.int64(7),  # type: ignore[arg-type]
        lr_factor=np.float32(0.5),  # type: ignore[arg-type]
        adam_eps=np.float64(1e-8),
        warmup_steps=torch.tensor(13),  # type: ignore[arg-type]
        validation_bleu=np.bool_(False),  # type: ignore[arg-type]
    )
    assert config == TrainConfig(max_steps=7, lr_factor=0.5, adam_eps=1e-8, warmup_steps=13, validation_bleu=False)
    assert type(config.adam_eps) is float
    assert yaml.safe_load(Config(train=config).to_yaml())["train"]["adam_eps"] == 1e-8
    with pytest.raises(ConfigError, match=r"^train\.max_steps must be a whole number, got 7\.0$"):
        TrainConfig(max_steps=np.float64(7))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^train\.max_steps must be a whole number, got array\(\[7\]\)$"):
        TrainConfig(max_steps=np.array([7]))  # type: ignore[arg-type]


def test_a_path_is_the_text_of_a_text_key_only() -> None:
    config = Config(run_dir=Path("a/b"), data=DataConfig(corpus=Path("c/{split}.tsv"), cache_dir=Path("d")))  # type: ignore[arg-type]
    assert (config.run_dir, config.data.corpus, config.data.cache_dir) == ("a/b", "c/{split}.tsv", "d")
    with pytest.raises(ConfigError, match=r"^seed must be a whole number, got PosixPath\('3'\)$"):
        Config(seed=Path("3"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^run_dir must be text, got b'x'$"):
        Config(run_dir=b"x")  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["0100", "1:30", "0x10", "0b11", "-017", "0o17", "1:30:00"])
def test_whole_numbers_of_yaml_that_are_not_decimal_are_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a decimal number; quote it if it is text|must be a whole number"):
        load(tmp_path, f"train: {{max_steps: {written}}}")
    with pytest.raises(ConfigError, match=r"^train\.max_steps must be a whole number, got '"):
        load(tmp_path, "", f"train.max_steps={written}")
    assert load(tmp_path, "", "train.max_steps=100_000").train.max_steps == 100_000


@pytest.mark.parametrize(
    "text", ["seed: 3\nseed: 5", "model: {d_ff: 3}\nseed: 3\nmodel: {d_k: 5}", "data: {x: 1, x: 1}"]
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: not YAML: (seed|model|x) is given twice in .*, line \d"):
        load(tmp_path, text)


@pytest.mark.parametrize("key", ["seed", "train.max_steps", "train.save_steps"])
def test_a_number_that_no_file_can_hold_is_refused(key: str) -> None:
    section, _, name = key.rpartition(".")
    cls = SECTIONS[section] if section else Config
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(key)}=9223372036854775808 must be at most 9223372036854775807$"
    ):
        cls(**{name: 2**63})


def test_plain_dataclasses_that_extend_a_section_are_checked_too() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(ModelConfig):
        extra: int = 0

    assert (Mine(d_ff=3, extra=5).d_ff, Mine(extra=5).extra) == (3, 5)
    for wrong in ({"dropout": 7.0}, {"norm": "middle"}, {"d_model": 15}, {"d_ff": "3"}):
        with pytest.raises(ConfigError, match=rf"^model\.{next(iter(wrong))}"):
            Mine(**wrong)  # type: ignore[arg-type]


def test_plain_dataclasses_that_extend_a_section_have_converted_values() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(ModelConfig):
        extra: int = 0

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Whole(Config):
        extra: int = 0

    mine = Mine(dropout="0.25", d_ff=np.int64(3), extra=5)  # type: ignore[arg-type]
    assert (mine.dropout, type(mine.d_ff), mine.extra) == (0.25, int, 5)
    whole = Whole(model=mine, run_dir=Path("runs/x"), extra=7)  # type: ignore[arg-type]
    assert (whole.run_dir, whole.model is mine, whole.extra) == ("runs/x", True, 7)
    assert yaml.safe_load(whole.to_yaml())["model"]["d_ff"] == 3


def test_values_without_their_keys_are_refused_by_the_name_of_the_section() -> None:
    for cls in (*SECTIONS.values(), Config):
        with pytest.raises(TypeError, match=rf"^{cls.__name__}.__init__\(\) takes 1 positional argument but 2 were"):
            cls(512)


@pytest.mark.parametrize("overrides", ["model.d_model=64", ["seed=3", None], [("seed", 3)]])
def test_overrides_are_a_list_of_texts(overrides: Any) -> None:
    message = f"overrides={overrides!r} must be a list of texts such as train.max_steps=1000"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        load_config("base", overrides)
    assert load_config("base", (text for text in ("seed=3", "model.d_ff=5"))).flat()["seed"] == 3


def test_the_signature_of_a_section_has_plain_types() -> None:
    assert str(inspect.signature(SearchConfig)).replace("Optional[int]", "int | None") == (
        "(*, beam: int = 4, alpha: float = 0.6, length_penalty: Literal['gnmt', 'power', 'none'] = 'gnmt', "
        "max_length_offset: int = 50, max_length: int | None = None, min_length: int = 0, no_repeat_ngram: int = 0, "
        "allow_unknown: bool = True, max_source_length: int = 1024)"
    )


def test_the_minimum_of_an_output_is_at_most_its_maximum() -> None:
    assert SearchConfig(min_length=7, max_length=7).min_length == 7
    with pytest.raises(ConfigError, match=r"^search\.min_length=8 is more than search\.max_length=7$"):
        SearchConfig(min_length=8, max_length=7)


@pytest.mark.parametrize("value", ["0.6", "1", "2.0e-1"])
def test_a_number_is_the_exponent_of_the_length_penalty_and_not_its_kind(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^search\.length_penalty=.* and search\.alpha is its exponent$"):
        load(tmp_path, "", f"search.length_penalty={value}")
    with pytest.raises(ConfigError, match=r"^search\.length_penalty='wu' is not one of gnmt, power, none$"):
        load(tmp_path, "", "search.length_penalty=wu")


def test_settings_of_a_search_are_replaced_by_name() -> None:
    search = SearchConfig(beam=3, no_repeat_ngram=2)
    assert override(search, beam=None, alpha=1.5, min_length=5) == SearchConfig(
        beam=3, no_repeat_ngram=2, alpha=1.5, min_length=5
    )
    with pytest.raises(ConfigError, match=r"^unknown key search\.num_beams; did you mean search\.beam\?$"):
        override(search, num_beams=3)
    with pytest.raises(ConfigError, match=r"^search\.no_repeat_ngram=-1 must be at least 0$"):
        override(search, no_repeat_ngram=-1)
    assert all(list(inspect.signature(cls).parameters) == list(cls().__dict__) for cls in SECTIONS.values())


# Unknown keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.dmodel", "model.d_model"),
        ("model.num_head", "model.num_heads"),
        ("train.warmup", "train.warmup_steps"),
        ("data.vocab", "data.vocab_size"),
        ("search.beam_size", "search.beam"),
        ("train.d_model", "model.d_model"),  # the right name in the wrong section
        ("model.beam", "search.beam"),
        ("search.max_steps", "train.max_steps"),
        ("d_model", "model.d_model"),  # and in no section
        ("model.seed", "seed"),
        ("sead", "seed"),
        ("run_dri", "run_dir"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_real_one(tmp_path: Path, key: str, nearest: str) -> None:
    message = rf"^unknown key {re.escape(key)}; did you mean {re.escape(nearest)}\?$"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, as_yaml(key, 3))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "", f"{key}=3")


@pytest.mark.parametrize(("section", "meant"), [("trian", "train"), ("modle", "model"), ("serach", "search")])
def test_a_misspelt_section_is_answered_with_a_key_of_the_section_that_was_meant(
    tmp_path: Path, section: str, meant: str
) -> None:
    name = {"train": "max_steps", "model": "d_model", "search": "beam"}[meant]
    for attempt in ((f"{section}: {{{name}: 3}}",), ("", f"{section}.{name}=3")):
        with pytest.raises(ConfigError, match=rf"unknown key {section}.*\b{meant}\b"):
            load(tmp_path, *attempt)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.load_model", "a run resumes from its last checkpoint by itself; init_from begins a new one"),
        ("train.optimizer", "the optimizer is always Adam; the key schedule of section train sets its learning rate"),
        ("train.lr", "did you mean train.learning_rate or train.lr_factor?"),
        ("lr_scheduler_type", "did you mean train.schedule?"),
        ("train.lr_min", "did you mean train.min_learning_rate?"),
        ("total_num_update", "did you mean train.decay_steps?"),
        ("batch_size", "did you mean train.max_tokens or train.tokens_per_update?"),
        ("train.learning-rate", "did you mean train.learning_rate?"),
        ("epochs", "did you mean train.max_steps?"),
        ("model.n_layers", "did you mean model.num_layers?"),
        ("modle.hidden_size", "did you mean model.d_model?"),
        ("train.max-steps", "did you mean train.max_steps?"),
        ("Train.Max_Steps", "did you mean train.max_steps?"),
        ("trian.max_step", "did you mean train.max_steps?"),
        ("max_step", "did you mean train.max_steps?"),
        ("trian", "did you mean the section train?"),
        ("search.nonsense", "keys of search: search.beam, search.alpha, "),
        ("serch.nonsense", "keys of search: search.beam, search.alpha, "),
        ("nowhere.nonsense", "known keys: run_dir, seed, "),
    ],
)
def test_a_hint_is_alike_or_known_from_elsewhere(tmp_path: Path, key: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^unknown key {re.escape(key)}; {re.escape(hint)}"):
        load(tmp_path, "", f"{key}=3")


def test_names_from_elsewhere_are_none_of_ours_and_each_stands_for_a_key() -> None:
    ours = {key.rpartition(".")[2] for key in HINTS}
    for name, meaning in config_hints._KEYS.items():
        assert name not in ours, name
        assert {*meaning.split(" or ")} <= {*HINTS} or (" " in meaning and "." not in meaning), meaning


def test_a_key_without_a_value_is_answered_with_its_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value: write train\.max_steps=VALUE$"):
        load(tmp_path, "", "train.max_steps", "5")
    with pytest.raises(ConfigError, match=r"^'max_step' is not of the form section\.key=value$"):
        load(tmp_path, "", "max_step", "5")


def test_a_key_unlike_any_other_is_answered_with_all_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown key 7; known keys: run_dir, seed, data\.corpus, ") as caught:
        load(tmp_path, "7: 3")
    assert all(key in str(caught.value) for key in HINTS)


# Ranges


@pytest.mark.parametrize(
    ("key", "values", "bound"),
    [
        ("model.d_model", [0, -8], "at least 1"),
        ("model.num_layers", [0], "at least 1"),
        ("model.num_decoder_layers", [0, -3], "at least 1"),
        ("model.num_decoder_layers", [1001], "at most 1000"),
        ("model.num_heads", [0], "at least 1"),
        ("model.num_kv_heads", [0, -2], "at least 1"),
        ("model.d_ff", [0], "at least 1"),
        ("model.max_positions", [0], "at least 1"),
        ("model.d_k", [0, -3], "at least 1"),
        ("model.d_v", [0], "at least 1"),
        ("model.dropout", [-0.1], "at least 0"),
        ("model.dropout", [1, 1.5], "less than 1"),
        ("model.attention_dropout", [1.0], "less than 1"),
        ("model.activation_dropout", [-0.1], "at least 0"),
        ("model.norm_eps", [0.0, -1.0], "more than 0"),
        ("model.attention_temperature", [0.0, -1.0], "more than 0"),
        ("model.attention_window", [0, -3], "at least 1"),
        ("model.max_relative_position", [0], "at least 1"),
        ("data.builtin_size", [0], "at least 1"),
        ("data.max_length", [1], "at least 2"),
        ("data.vocab_size", [7], "at least 8"),
        ("data.character_coverage", [0.5, 0.0], "at least 0.98"),
        ("data.character_coverage", [1.5], "at most 1"),
        ("data.max_ratio", [0.9], "at least 1"),
        ("train.tokens_per_update", [0], "at least 1"),
        ("train.max_tokens", [0], "at least 1"),
        ("train.warmup_steps", [0], "at least 1"),
        ("train.max_steps", [0], "at least 1"),
        ("train.log_steps", [0], "at least 1"),
        ("train.validate_steps", [0], "at least 1"),
        ("train.patience", [0], "at least 1"),
        ("train.save_steps", [0], "at least 1"),
        ("train.keep_checkpoints", [0], "at least 1"),
        ("train.num_threads", [0], "at least 1"),
        ("train.label_smoothing", [-0.1], "at least 0"),
        ("train.label_smoothing", [1.0], "less than 1"),
        ("train.adam_beta1", [1.0], "less than 1"),
        ("train.adam_beta2", [-0.1], "at least 0"),
        ("train.lr_factor", [0.0], "more than 0"),
        ("train.learning_rate", [0.0, -1.0], "more than 0"),
        ("train.min_learning_rate", [-0.1], "at least 0"),
        ("train.decay_steps", [0], "at least 1"),
        ("train.adam_eps", [0.0], "more than 0"),
        ("train.clip_norm", [0.0], "more than 0"),
        ("train.max_hours", [0.0], "more than 0"),
        ("train.save_minutes", [0.0], "more than 0"),
        ("train.weight_decay", [-0.1], "at least 0"),
        ("train.ema_decay", [1.0], "less than 1"),
        ("train.ema_decay", [-0.1], "at least 0"),
        ("search.beam", [0], "at least 1"),
        ("search.max_source_length", [0], "at least 1"),
        ("search.alpha", [-0.1], "at least 0"),
        ("search.max_length_offset", [-1], "at least 0"),
    ],
)
def test_values_out_of_range_are_refused_with_the_bound(
    tmp_path: Path, key: str, values: list[float], bound: str
) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{re.escape(key)}={value}.* {bound}$"):
            load(tmp_path, as_yaml(key, value))


def test_values_on_the_closed_side_of_a_bound_are_accepted(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        model: {d_model: 1, num_heads: 1, d_ff: 1, num_layers: 1, d_k: 1, d_v: 1, dropout: 0.0, max_positions: 1}
        data: {builtin_size: 1, max_length: 2, vocab_size: 8, max_ratio: 1.0}
        train: {label_smoothing: 0.0, adam_beta1: 0.0, adam_beta2: 0.0, weight_decay: 0.0, patience: 1, max_tokens: 1}
        search: {beam: 1, alpha: 0.0, max_length_offset: 0, max_source_length: 1}
        """,
    )
    assert config.search.max_length_offset == 0


@pytest.mark.parametrize("key", keys_of(int))
def test_no_whole_number_may_be_negative(tmp_path: Path, key: str) -> None:
    # numpy refuses a negative seed with a traceback, at the first plan of an epoch.
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}=-1 must be at least"):
        load(tmp_path, as_yaml(key, -1))


@pytest.mark.parametrize("key", keys_of(float))
def test_what_is_not_a_number_is_refused_everywhere(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}=nan must be "):
        load(tmp_path, as_yaml(key, float("nan")))


# Infinity switches a limit off; an infinite learning rate, epsilon or penalty is a mistake.
@pytest.mark.parametrize(
    "key",
    [
        key
        for key in keys_of(float)
        if key not in ("data.max_ratio", "train.clip_norm", "train.max_hours", "train.save_minutes")
    ],
)
def test_infinity_is_refused_except_for_limits(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}=inf must be "):
        load(tmp_path, as_yaml(key, float("inf")))


def test_sections_built_in_code_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"model\.dropout=1\.0 must be less than 1"):
        ModelConfig(dropout=1.0)
    with pytest.raises(ConfigError, match=r"search\.beam=0 must be at least 1"):
        SearchConfig(beam=0)


def test_heads_must_divide_d_model_unless_d_k_is_given(tmp_path: Path) -> None:
    message = r"model\.d_model=15 is not a multiple of model\.num_heads=7: change one of them, or give model\.d_k"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "model: {d_model: 15, num_heads: 7}")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "model: {d_model: 15}", "model.num_heads=7")
    assert load(tmp_path, "model: {d_model: 15, num_heads: 7, d_k: 2}").model.d_k == 2
    assert load(tmp_path, "model: {d_model: 15, num_heads: 5}").model.num_heads == 5


def test_the_key_value_heads_must_divide_the_heads(tmp_path: Path) -> None:
    message = r"^model\.num_heads=8 is not a multiple of model\.num_kv_heads=3: change one of them$"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "model: {num_kv_heads: 3}")
    with pytest.raises(ConfigError, match=r"model\.num_heads=8 is not a multiple of model\.num_kv_heads=16"):
        load(tmp_path, "model: {num_kv_heads: 16}")
    for num_kv_heads in (1, 2, 4, 8):
        assert load(tmp_path, f"model: {{num_kv_heads: {num_kv_heads}}}").model.num_kv_heads == num_kv_heads


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("attention_window: 4", r"model\.attention_window=4 must be odd, to have a centre"),
        (
            "attention_window: 3, attention_score: location",
            r"model\.attention_window=3 is not defined for model\.attention_score=location, only for scaled_dot, dot, "
            "general, cosine, additive",
        ),
        (
            "num_kv_heads: 2, attention_score: additive",
            r"model\.num_kv_heads=2 is not defined for model\.attention_score=additive, only for scaled_dot, dot, "
            "general, cosine",
        ),
        (
            "num_kv_heads: 2, attention_score: location",
            r"model\.num_kv_heads=2 is not defined for model\.attention_score=location, only for .*",
        ),
        (
            "positional: alibi, attention_score: location",
            r"model\.positional=alibi is not defined for model\.attention_score=location, only for scaled_dot, dot, "
            "general, cosine, additive",
        ),
        (
            "positional: rotary, attention_score: additive",
            r"model\.positional=rotary is not defined for model\.attention_score=additive, only for scaled_dot, dot, "
            "general, cosine",
        ),
        (
            "positional: shaw, attention_score: cosine",
            r"model\.positional=shaw is not defined for model\.attention_score=cosine, only for scaled_dot, dot, "
            "general",
        ),
        (
            "positional: rotary, d_k: 7",
            r"model\.positional=rotary rotates pairs of channels: model\.d_k=7 must be even",
        ),
        ("positional: rotary, d_model: 15, num_heads: 3", r"model\.d_k=5 must be even"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}$"):
        load(tmp_path, f"model: {{{model}}}")


@pytest.mark.parametrize("score", typing.get_args(HINTS["model.attention_score"]))
def test_alibi_is_a_bias_and_grouped_heads_need_keys_without_parameters(tmp_path: Path, score: str) -> None:
    def is_accepted(options: str) -> bool:
        try:
            load(tmp_path, f"model: {{attention_score: {score}, {options}}}")
        except ConfigError:
            return False
        return True

    assert is_accepted("positional: alibi") == (score != "location")
    assert is_accepted("num_kv_heads: 2") == (score not in ("additive", "location"))
    assert is_accepted("num_kv_heads: 8"), "as many as heads: not grouped"


@pytest.mark.parametrize("score", typing.get_args(HINTS["model.attention_score"]))
@pytest.mark.parametrize("positional", typing.get_args(HINTS["model.positional"]))
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("num_kv_heads", [None, 1])
def test_each_accepted_combination_of_attentions_builds_a_model_that_runs(
    score: Any, positional: Any, window: int | None, num_kv_heads: int | None
) -> None:
    options = {"d_model": 6, "num_heads": 3, "attention_score": score, "positional": positional, "d_ff": 5}
    try:
        config = ModelConfig(**options, attention_window=window, num_kv_heads=num_kv_heads, num_layers=1)
    except ConfigError as error:
        assert "is not defined for model.attention_score" in str(error)
        return
    src, tgt = torch.randint(1, 7, (2, 5)), torch.randint(1, 7, (2, 3))
    assert build_model(7, config)(src, tgt).isfinite().all()


@pytest.mark.parametrize("option", ["positional: learned", "attention_score: location"])
def test_positions_must_be_enough_for_the_training_data(tmp_path: Path, option: str) -> None:
    text = f"model: {{{option}, max_positions: 17}}\ndata: {{max_length: 19}}"
    message = r"^model\.max_positions=17 is less than data\.max_length=19: raise the first or lower the second$"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)
    assert load(tmp_path, text, "data.max_length=17").model.max_positions == 17
    # They have no limit.
    others = ("model.positional=sinusoidal", "model.attention_score=scaled_dot")
    assert load(tmp_path, text, *others).data.max_length == 19


# Files and overrides


@pytest.mark.parametrize("override", ["seed", "", "=3", "model.d_model", "--seed"])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{override}' is not of the form section\.key=value"):
        load(tmp_path, "", override)


@pytest.mark.parametrize("override", ["seed.deep=3", "run_dir.x=3", "model.d_model.x=3"])
def test_an_override_into_a_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a section|must be a whole number|must be text"):
        load(tmp_path, "", override)


def test_an_override_into_a_section_that_the_file_made_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'model\.d_model=5': model is not a section"):
        load(tmp_path, "model: 3", "model.d_model=5")


@pytest.mark.parametrize("text", ["model: 3", "model: [d_model]", "model:", "model: text"])
def test_a_section_must_hold_keys(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^model: expected a section of keys, got "):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: no such configuration file$"):
        load_config(path)


def test_a_directory_instead_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path))}: cannot be read: .*[Dd]irectory"):
        load_config(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("run_dir: Läufe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: it is not text in UTF-8"):
        load_config(path)


@pytest.mark.parametrize("text", ["a: b: c", "model: {d_model: 3", "\tseed: 3", "seed: 3\n  model: 5", "seed: \x00"])
def test_a_file_that_is_not_yaml_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: not YAML: ") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["2024-02-30", "2024-13-01"])
def test_an_impossible_date_is_an_error_of_the_user_not_a_bug(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, f"data: {{subset: {text}}}")
    assert load(tmp_path, "", f"data.subset={text}").data.subset == text  # no YAML value: the text it is


@pytest.mark.parametrize("text", ["- seed", "just text", "3", "[]", "false"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: expected `key: value` lines, got "):
        load(tmp_path, text)


# A file based on another


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_holds_only_what_differs_from_its_base(tmp_path: Path) -> None:
    write(tmp_path, "first.yaml", "seed: 3\nmodel: {d_ff: 101, num_layers: 5, dropout: 0.3}\nsearch: {beam: 7}")
    write(tmp_path, "second.yaml", "base: first.yaml\nmodel: {num_layers: 2, d_ff: 103}")
    path = write(tmp_path, "deep/third.yaml", "base: ../second.yaml\nmodel: {d_ff: 107}\ntrain: {warmup_steps: 11}")
    config = load_config(path, ["search.alpha=0.9"])
    assert config == Config(
        run_dir="runs/third",
        seed=3,
        model=ModelConfig(d_ff=107, num_layers=2, dropout=0.3),
        train=TrainConfig(warmup_steps=11),
        search=SearchConfig(beam=7, alpha=0.9),
    )


def test_a_base_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "first.yaml", "seed: 3")
    path = write(tmp_path, "deep/second.yaml", "base: ../first.yaml")
    absolute = write(tmp_path, "deep/third.yaml", f"base: {tmp_path / 'first.yaml'}")
    monkeypatch.chdir(tmp_path / "deep")
    assert load_config(path).seed == load_config("second.yaml").seed == load_config(absolute).seed == 3


def test_the_name_of_the_run_is_not_the_bases(tmp_path: Path) -> None:
    # Two runs in one directory would be one too many.
    write(tmp_path, "first.yaml", "run_dir: runs/elsewhere")
    assert load(tmp_path, "base: first.yaml").run_dir == "runs/mine"
    assert load(tmp_path, "base: first.yaml\nrun_dir: runs/here").run_dir == "runs/here"


def test_a_section_that_is_emptied_is_an_error_as_without_a_base(tmp_path: Path) -> None:
    write(tmp_path, "first.yaml", "model: {d_ff: 101}")
    with pytest.raises(ConfigError, match=r"^model: expected a section of keys, got None"):
        load(tmp_path, "base: first.yaml\nmodel:")
    write(tmp_path, "first.yaml", "model:")
    assert load(tmp_path, "base: first.yaml\nmodel: {d_ff: 103}").model.d_ff == 103


@pytest.mark.parametrize("base", ["3", "[first.yaml]", "", "null", "{model: first.yaml}"])
def test_a_base_is_the_name_of_a_file(tmp_path: Path, base: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: base must be the name of a YAML file, got "):
        load(tmp_path, f"base: {base}")


def test_a_base_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"first\.yaml: no such configuration file, which is the base of .*mine\.yaml$"
    ):
        load(tmp_path, "base: first.yaml")
    write(tmp_path, "first.yaml", "- seed")
    with pytest.raises(ConfigError, match=r"first\.yaml: expected `key: value` lines, got "):
        load(tmp_path, "base: first.yaml")
    write(tmp_path, "first.yaml", "model: {dropuot: 0.3}")
    with pytest.raises(ConfigError, match=r"^unknown key model\.dropuot; did you mean model\.dropout\?"):
        load(tmp_path, "base: first.yaml")


@pytest.mark.parametrize("last", ["mine.yaml", "../{directory}/mine.yaml", "first.yaml"])
def test_files_that_are_based_on_each_other_are_an_error_that_names_them(tmp_path: Path, last: str) -> None:
    write(tmp_path, "first.yaml", f"base: {last.format(directory=tmp_path.name)}")
    with pytest.raises(ConfigError, match=r"mine\.yaml is based on .*first\.yaml is based on .*: remove one `base:`"):
        load(tmp_path, "base: first.yaml")


# Renamed keys


@pytest.fixture
def warnings(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Returns the lines on stderr since its last call; warnings of earlier tests are repeated."""
    config_file._report_renamed.cache_clear()
    return lambda: capsys.readouterr().err.splitlines()


def test_every_old_key_has_a_new_name_in_its_section() -> None:
    for old, new in RENAMED_KEYS.items():
        assert new in HINTS and old not in HINTS
        assert old.split(".")[:-1] == new.split(".")[:-1]


def test_an_old_key_in_a_users_file_works_and_is_reported_once(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    for _ in range(2):
        assert load(tmp_path, "search: {max_extra: 7, beam: 3}").search == SearchConfig(beam=3, max_length_offset=7)
    assert warnings() == [f"warning: {tmp_path}/mine.yaml: search.max_extra is now called search.max_length_offset"]


def test_an_old_key_in_an_override_works_and_is_reported_once(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    for _ in range(2):
        assert load(tmp_path, "search: {max_length_offset: 5}", "search.max_extra=7").search.max_length_offset == 7
    assert warnings() == ["warning: search.max_extra is now called search.max_length_offset"]
    assert load(tmp_path, "search: {max_extra: 5}", "search.max_length_offset=7").search.max_length_offset == 7


def test_an_old_key_of_a_base_is_overridden_by_the_new_name(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    write(tmp_path, "first.yaml", "search: {max_extra: 7}")
    assert load(tmp_path, "base: first.yaml").search.max_length_offset == 7
    assert load(tmp_path, "base: first.yaml\nsearch: {max_length_offset: 9}").search.max_length_offset == 9
    assert warnings() == [f"warning: {tmp_path}/first.yaml: search.max_extra is now called search.max_length_offset"]


def test_a_saved_configuration_with_an_old_key_is_read_silently(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    path = write(tmp_path, "config.yaml", "search: {max_extra: 7}")
    config = load_config(path, saved=True)
    assert config.search.max_length_offset == 7
    assert "max_extra" not in config.to_yaml()
    path = FORMAT_1 / "config.yaml"
    assert "max_extra: 50" in path.read_text(encoding="utf-8")
    assert load_config(path, saved=True).search.max_length_offset == 50
    assert warnings() == []


def test_a_run_saved_with_an_old_key_resumes_silently(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    run = tmp_path / "run"
    shutil.copytree(FORMAT_1, run / "checkpoints" / "step-00000450")
    for name in ("config.yaml", "tokenizer.model"):
        shutil.copy(FORMAT_1 / name, run)
    text = (FORMAT_1 / "config.yaml").read_text(encoding="utf-8").replace("max_extra", "max_length_offset")
    config = load(tmp_path, text, f"run_dir={run}", f"data.cache_dir={tmp_path}/cache", "train.max_steps=451")
    trainer = Trainer.from_config(config)
    assert trainer.progress.step == 450
    assert trainer.fit() == "train.max_steps=451 reached"
    assert not [line for line in warnings() if "max_extra" in line]
    assert load_config(run / "config.yaml") == trainer.config
    of_today = {
        "data": dataclasses.replace(trainer.config.data, normalization="minimal"),
        "train": dataclasses.replace(trainer.config.train, batching="mixed"),
    }
    assert dataclasses.replace(trainer.config, **of_today) == config
    assert "max_extra" not in (run / "config.yaml").read_text(encoding="utf-8")
    assert warnings() == []


@pytest.mark.parametrize("saved", [False, True])
def test_both_names_of_a_key_in_one_file_are_refused(tmp_path: Path, saved: bool) -> None:
    path = write(tmp_path, "mine.yaml", "search: {max_extra: 7, max_length_offset: 7}")
    message = r"mine\.yaml: search\.max_extra is the old name of search\.max_length_offset: give only search\.max_len"
    with pytest.raises(ConfigError, match=message):
        load_config(path, saved=saved)


def test_a_wrong_value_of_an_old_key_is_refused_under_its_new_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^search\.max_length_offset must be a whole number, got 'many'$"):
        load(tmp_path, "search: {max_extra: many}")
    with pytest.raises(ConfigError, match=r"^search: expected a section of keys, got "):
        load(tmp_path, "search: [max_extra]")


def test_a_base_cannot_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown key base"):
        load(tmp_path, "", "base=first.yaml")


def test_errors_are_what_the_scripts_print_as_one_line() -> None:
    assert issubclass(ConfigError, UserError)
    assert issubclass(UserError, ValueError)


# What comes out again


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            run_dir="Läufe/ein 'Name': # kein Kommentar",
            seed=3,
            model=ModelConfig(d_model=15, num_heads=7, d_k=2, d_v=3, norm="pre", tie="none", norm_eps=1e-12),
            data=DataConfig(corpus="{split}.{lang}.gz", subset=None, src_lang="no", tgt_lang="1e3", max_ratio=1.5),
            train=TrainConfig(adam_eps=1e-9, max_hours=float("inf"), save_minutes=None, patience=5, weight_decay=1e-20),
            search=SearchConfig(beam=7, alpha=0.0),
        ),
    ],
)
def test_written_and_read_again_a_configuration_is_the_same(tmp_path: Path, config: Config) -> None:
    assert load(tmp_path, config.to_yaml()) == config


def test_to_yaml_contains_every_key_in_the_order_of_the_code() -> None:
    written = yaml.safe_load(Config().to_yaml())
    assert list(written) == ["run_dir", "seed", "model", "data", "train", "search"]
    for section, cls in SECTIONS.items():
        assert list(written[section]) == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_the_differences_from_the_defaults_are_a_configuration_that_equals_the_whole(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    assert load(tmp_path, config.differences()) == config


def test_what_differs_from_the_defaults_is_a_line_per_section() -> None:
    config = Config(run_dir="runs/x", seed=7, model=ModelConfig(num_layers=2, d_k=5), search=SearchConfig(beam=4))
    assert config.differences() == "run_dir: runs/x\nseed: 7\nmodel: {num_layers: 2, d_k: 5}\n"
    assert Config().differences() == "run_dir: runs/base\n"


def test_long_sections_of_differences_are_wrapped() -> None:
    lines = load_config("parsing_wsj").differences().splitlines() + load_config("quickstart").differences().splitlines()
    assert max(map(len, lines)) <= 80


def test_flat_gives_every_value_by_its_dotted_key() -> None:
    flat = Config(seed=5, search=SearchConfig(beam=3)).flat()
    assert flat["seed"] == 5
    assert flat["search.beam"] == 3
    assert "search" not in flat
    assert Config(train=TrainConfig(freeze=("encoder", "embeddings"))).flat()["train.freeze"] == [
        "encoder",
        "embeddings",
    ]


@pytest.mark.parametrize("config", [Config(), ModelConfig(), DataConfig(), TrainConfig(), SearchConfig()])
def test_a_configuration_cannot_be_changed(config: Any) -> None:
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))


def test_reading_does_not_change_the_defaults(tmp_path: Path) -> None:
    before = Config()
    load(tmp_path, "model: {d_ff: 3}", "train.max_steps=5")
    assert Config() == before


# Tokenizers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("data.source_vocab_size=97",),
            "data.source_vocab_size=97 needs data.separate_vocabularies=true; the size of",
        ),
        (
            ("data.subword_dropout=0.1", "data.subword_alpha=0.2"),
            "data.subword_dropout=0.1 is for BPE, data.subword_alpha=0.2 for unigram models: set one of them",
        ),
        (
            ("data.tokenizer_type=unigram", "data.subword_dropout=0.1"),
            "data.subword_dropout=0.1 is for BPE; for data.tokenizer_type=unigram set data.subword_alpha",
        ),
        (
            ("data.subword_alpha=0.2",),
            "data.subword_alpha=0.2 is for data.tokenizer_type=unigram; for bpe set data.subword_dropout",
        ),
        (("data.separate_vocabularies=true",), "data.separate_vocabularies=true leaves nothing that model.tie=all"),
    ],
)
def test_options_of_tokenizers_that_do_not_go_together_name_both_keys(
    tmp_path: Path, values: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(tmp_path, "", *values)


def test_with_a_tokenizer_from_elsewhere_the_method_of_sampling_is_checked_when_it_is_read(tmp_path: Path) -> None:
    for value in ("data.subword_alpha=0.2", "data.subword_dropout=0.1"):
        assert load(tmp_path, "", "data.tokenizer=x.model", value).data.tokenizer == "x.model"


def test_symbols_are_a_list_or_one_text(tmp_path: Path) -> None:
    for value in ("[<2de>, '<2fr>']", '["<2de>", "<2fr>"]'):
        assert load(tmp_path, "", f"data.user_symbols={value}").data.user_symbols == ("<2de>", "<2fr>")
    assert load(tmp_path, "", "data.user_symbols=<2de>").data.user_symbols == ("<2de>",)
