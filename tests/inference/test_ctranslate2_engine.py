"""The engine CTranslate2 behind `Translator`: what it is asked, what becomes of its answers, what is refused."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from transformer.config import SearchConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, DeviceError
from transformer.inference.ctranslate2_engine import CTranslate2Translator, check_search
from transformer.inference.sampling import Sampling
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint

TEXTS = ["A man is sleeping.", "Two small dogs are playing in the park.", "A cat."]
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29, "d_k": None, "d_v": None}
POWER = SearchConfig(beam=3, alpha=1.0, length_penalty="power", max_length_offset=7)


class Engine:
    """In the place of ctranslate2.Translator: gives the answers that are prepared, and records what it is asked."""

    answers: list[tuple[list[list[str]], list[float]]]
    device = "cpu"
    compute_type = "int8_float32"

    def __init__(self, directory: str, **options: Any) -> None:
        if options["compute_type"] == "float16":
            raise ValueError("Requested float16 compute type,\nbut the device does not support it")
        self.directory, self.options = directory, options
        self.asked: list[tuple[list[list[str]], dict[str, Any]]] = []

    def translate_batch(self, sources: Sequence[Sequence[str]], **options: Any) -> list[Any]:
        self.asked.append(([list(source) for source in sources], options))
        found = self.answers[: len(sources)]
        del self.answers[: len(sources)]
        return [SimpleNamespace(hypotheses=hypotheses, scores=scores) for hypotheses, scores in found]


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Exported:
    config, tokenizer, _ = load_checkpoint(max((trained_run / "checkpoints").iterdir()))
    torch.manual_seed(7)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **SIZES), search=POWER)
    built = build_model(len(tokenizer), config.model).eval()
    return Exported(config, tokenizer, built, "a model in memory")


@pytest.fixture(scope="module")
def directory(model: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "ct2"
    export(model, "ct2", path)
    return path


@pytest.fixture
def translator(directory: Path, monkeypatch: pytest.MonkeyPatch) -> CTranslate2Translator:
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Translator=Engine))
    return CTranslate2Translator(directory)


def answer(translator: CTranslate2Translator, *answers: tuple[list[list[str]], list[float]]) -> Engine:
    engine: Engine = translator._engine
    engine.answers = list(answers)
    return engine


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.pieces(tokenizer.encode([text])[0])


def test_it_is_asked_for_pieces_without_the_end_and_for_what_the_search_says(translator: CTranslate2Translator) -> None:
    tokenizer = translator.tokenizer
    out = [*pieces(tokenizer, "Ein Mann schläft."), "</s>"]
    engine = answer(translator, ([out], [-0.5]))
    (found,) = translator.translate_nbest([TEXTS[0]], nbest=1)
    (sources, options), source = engine.asked[0], pieces(tokenizer, TEXTS[0])
    assert sources == [source]
    assert options == {
        "beam_size": 3,
        "length_penalty": 1.0,
        "num_hypotheses": 3,
        "max_decoding_length": len(source) + 7,
        "min_decoding_length": 0,
        "no_repeat_ngram_size": 0,
        "max_input_length": 0,
        "return_end_token": True,
        "return_scores": True,
    }
    assert found[0].text == "Ein Mann schläft."
    assert (found[0].score, found[0].log_prob) == (-0.5, pytest.approx(-0.5 * len(out)))
    assert found[0].ids[-1] == 3


def test_the_rules_are_those_of_the_search(translator: CTranslate2Translator) -> None:
    engine = answer(translator, ([["</s>"]], [-1.0]))
    translator.translate([TEXTS[0]], min_length=5, no_repeat_ngram=2, allow_unknown=False, max_length=9)
    options = engine.asked[0][1]
    assert (options["min_decoding_length"], options["max_decoding_length"]) == (4, 9), "the first without </s>"
    assert (options["no_repeat_ngram_size"], options["disable_unk"]) == (2, True)
    assert options["suppress_sequences"] == [["<pad>"], ["<s>"]]


def test_greedy_scores_are_divided_by_our_penalty(translator: CTranslate2Translator) -> None:
    engine = answer(translator, ([["▁A", "</s>"]], [-3.0]))
    ((one,),) = translator.translate_nbest([TEXTS[0]], nbest=1, beam=1, length_penalty="gnmt", alpha=0.6)
    assert engine.asked[0][1]["length_penalty"] == 0
    assert (one.log_prob, one.score) == (-3.0, pytest.approx(-3 / (7 / 6) ** 0.6))


def test_sentences_are_asked_for_at_once_with_the_largest_of_their_limits(translator: CTranslate2Translator) -> None:
    done = ([["</s>"]], [-1.0])
    engine = answer(translator, done, done, done)
    translator.translate(TEXTS)
    ((sources, options),) = engine.asked
    lengths = list(map(len, sources))
    assert len({*lengths}) == 3
    assert options["max_decoding_length"] == max(lengths) + 7


def test_one_that_is_longer_than_its_own_limit_is_asked_for_again_under_that(translator: CTranslate2Translator) -> None:
    lengths = sorted((len(pieces(translator.tokenizer, text)) for text in TEXTS), reverse=True)
    done, late = ([["</s>"]], [-1.0]), ([["▁A"] * (lengths[0] + 7)], [-0.1])
    engine = answer(translator, late, late, late, done, done)
    translator.translate(TEXTS)
    asked = [(len(sources), options["max_decoding_length"]) for sources, options in engine.asked]
    assert asked == [(3, lengths[0] + 7), (1, lengths[1] + 7), (1, lengths[2] + 7)]


def test_what_was_cut_comes_after_all_that_finished(translator: CTranslate2Translator) -> None:
    answer(translator, ([["▁A"] * 4, ["▁B", "</s>"]], [-0.1, -0.9]))
    ((first, second),) = translator.translate_nbest([TEXTS[0]], nbest=2)
    assert (first.score, second.score) == (-0.9, -0.1)


def test_without_a_penalty_others_are_asked_for_only_where_the_best_was_cut(translator: CTranslate2Translator) -> None:
    cut, done = [["▁A"] * 4], [["▁B", "</s>"]]
    engine = answer(translator, (cut, [-0.1]), ([*cut, *done], [-0.1, -0.9]))
    ((one,),) = translator.translate_nbest([TEXTS[0]], nbest=1, alpha=0.0)
    assert [options["num_hypotheses"] for _, options in engine.asked] == [1, 3]
    assert one.score == -0.9
    engine = answer(translator, (done, [-0.9]))
    translator.translate([TEXTS[0]], alpha=0.0)
    assert len(engine.asked) == 3, "one more"


def test_translations_of_one_text_have_one_place_in_the_list(translator: CTranslate2Translator) -> None:
    word = pieces(translator.tokenizer, "Mann")
    letters = ["▁", *"Mann"]
    hypotheses = [[*word, "</s>"], [*letters, "</s>"], ["</s>"]]
    known = set(translator._ids)
    assert {*letters} <= known
    answer(translator, (hypotheses, [-0.1, -0.2, -0.3]))
    (found,) = translator.translate_nbest([TEXTS[0]], nbest=3)
    assert [one.text for one in found] == ["Mann", ""]


def test_empty_and_unknown_texts_are_not_asked_for(translator: CTranslate2Translator) -> None:
    engine = answer(translator)
    assert translator.translate(["", "здесь."]) == ["", "здесь."]
    assert engine.asked == []


def test_texts_longer_than_the_table_of_positions_are_refused(translator: CTranslate2Translator) -> None:
    assert translator.max_length == POWER.max_source_length + POWER.max_length_offset
    with pytest.raises(DataError, match="more than the limit of 1031: split it"):
        translator.translate([" ".join(TEXTS * 200)], max_source_length=100_000)


def test_what_only_our_search_does_is_refused(translator: CTranslate2Translator) -> None:
    for options, name in (
        ({"sampling": Sampling()}, "samples"),
        ({"prefixes": ["Ein"]}, "prefixes"),
        ({"constraints": [["Mann"]]}, "constraints"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}: the engine ctranslate2 has none; leave --engine out$"):
            translator.translate([TEXTS[0]], **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^scores of tokens: the engine"):
        translator.translate_nbest([TEXTS[0]], nbest=1, token_scores=True)
    with pytest.raises(
        ConfigError, match=r"^length_penalty=gnmt with alpha=0\.6: .* choose --length-penalty power, or none"
    ):
        translator.translate([TEXTS[0]], length_penalty="gnmt", alpha=0.6)


@pytest.mark.parametrize(
    "search",
    [{"beam": 1}, {"alpha": 0.0}, {"length_penalty": "power"}, {"length_penalty": "none"}],
)
def test_searches_that_it_has_are_not_refused(search: dict[str, Any]) -> None:
    check_search(SearchConfig(**search))


def test_its_identity_is_that_of_the_files_and_the_search(translator: CTranslate2Translator, model: Exported) -> None:
    found = translator.identity()
    assert (found["engine"], found["precision"], found["beam"]) == ("ctranslate2", "int8_float32", 3)
    assert found["tokenizer"] == model.tokenizer.digest
    translator.too_long = "split"
    assert translator.identity() != found


def test_it_has_no_model_of_ours(translator: CTranslate2Translator, model: Exported) -> None:
    with pytest.raises(AttributeError, match="has no model of this project"):
        _ = translator.model
    with pytest.raises(AttributeError, match="has no model of this project"):
        translator.model = model.model
    with pytest.raises(ConfigError, match="the weights are another engine's: save the model that was exported"):
        translator.save_pretrained("never")
    translator.prepack()
    assert str(translator.device) == "cpu"


@pytest.mark.parametrize("load", [CTranslate2Translator.load, CTranslate2Translator.from_pretrained])
def test_it_loads_as_other_translators_do(
    directory: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., CTranslate2Translator]
) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Translator=Engine))
    loaded = load(directory, device=torch.device("cpu"), precision="fp32", prepack=False)
    assert type(loaded) is CTranslate2Translator
    assert (loaded.origin, loaded._engine.options["compute_type"]) == (str(directory), "float32")
    with pytest.raises(DeviceError, match=r"^device=cuda:1: the engine ctranslate2 has auto, cpu and cuda$"):
        load(directory, device="cuda:1")


def test_devices_and_precisions_that_it_lacks_are_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Translator=Engine))
    with pytest.raises(DeviceError, match=r"^precision=tf32: the engine ctranslate2 has auto, fp32, bf16, fp16, int8$"):
        CTranslate2Translator(directory, precision="tf32")
    with pytest.raises(DeviceError, match=r"^device=mps: the engine ctranslate2 has auto, cpu and cuda$"):
        CTranslate2Translator(directory, device="mps")
    with pytest.raises(DeviceError, match=r"the engine ctranslate2 cannot load it: Requested float16 compute type"):
        CTranslate2Translator(directory, precision="fp16")
    assert CTranslate2Translator(directory, precision="int8")._engine.options["compute_type"] == "int8"


def test_what_is_no_export_is_refused(trained_run: Path, tmp_path: Path) -> None:
    for path in (trained_run, tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            CheckpointError, match=r"is not a model for CTranslate2; write one: transformer export RUN --to ct2"
        ):
            CTranslate2Translator(path)


def test_without_the_package_its_extra_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(DataError, match=r"pip install 'attention-is-all-you-need\[ctranslate2\]'"):
        CTranslate2Translator(directory)


# With the engine itself, if it is installed.

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"beam": 1},
    "beam": {"beam": 3, "alpha": 0.0},
    "no 2-gram twice": {"beam": 1, "no_repeat_ngram": 2},
    "minimum": {"beam": 1, "min_length": 6},
    "maximum": {"beam": 1, "max_length": 5},
}


@pytest.mark.parametrize("search", SEARCHES)
def test_translations_are_ours(model: Exported, directory: Path, search: str) -> None:
    pytest.importorskip("ctranslate2")
    engine = CTranslate2Translator(directory, precision="fp32")
    ours = Translator(model.model, model.tokenizer, model.config.search)
    options: Any = {"nbest": 1, **SEARCHES[search]}
    expected = ours.translate_nbest(TEXTS, **options)
    found = engine.translate_nbest(TEXTS, **options)
    for (one,), (other,) in zip(found, expected, strict=True):
        assert one.ids == other.ids
        if "minimum" not in search and "2-gram" not in search:  # there it computes the probabilities of what is left
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("search", [{"beam": 1}, {"beam": 3, "alpha": 0.0}, {"beam": 3}])
def test_translations_do_not_depend_on_the_limits_of_others(
    model: Exported, directory: Path, search: dict[str, Any]
) -> None:
    pytest.importorskip("ctranslate2")
    engine = CTranslate2Translator(directory, precision="fp32")
    together = engine.translate_nbest([*TEXTS, " ".join(TEXTS * 5)], nbest=1, **search)
    for text, (one,) in zip(TEXTS, together[:3], strict=True):
        ((alone,),) = engine.translate_nbest([text], nbest=1, **search)
        assert one.ids == alone.ids
        assert len(one.ids) <= len(pieces(model.tokenizer, text)) + 7


def test_log_probabilities_are_those_of_the_model(model: Exported, directory: Path) -> None:
    pytest.importorskip("ctranslate2")
    engine = CTranslate2Translator(directory, precision="fp32")
    found = engine.translate_nbest(TEXTS, nbest=1, beam=3, alpha=1.0, length_penalty="power")
    for source, (one,) in zip(model.tokenizer.encode(TEXTS), found, strict=True):
        src, tgt = torch.tensor([[*source, 3]]), torch.tensor([[2, *one.ids]])
        with torch.no_grad():
            log_probs = model.model(src, tgt[:, :-1])[0].log_softmax(dim=-1)
        expected = log_probs.gather(1, tgt[0, 1:, None]).sum().item()
        assert one.log_prob == pytest.approx(expected, abs=1e-4)
        assert one.score == pytest.approx(expected / len(one.ids), abs=1e-4)
