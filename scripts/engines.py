"""Compare a run with its exports, engine by engine: python scripts/engines.py RUN [--src FILE --ref FILE]

Exports the run to Hugging Face Marian, CTranslate2 and ONNX, translates the test set by all of them under the same
rules, and prints how many translations are the same, and BLEU of both. The same rules: log P divided by |Y|^alpha, one
limit for the length of all outputs, no unknown pieces, float32. Every format is also read or computed back: weights of
Hugging Face's are compared bit by bit, logits of all engines by teacher forcing.
"""

from __future__ import annotations

import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from transformer.cli import run
from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from transformer.errors import ConfigError
from transformer.inference.ctranslate2_engine import CTranslate2Translator
from transformer.inference.evaluation_set import EvaluationSet
from transformer.inference.scoring import Scorer
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.progress import stage

_BATCH = 50
Texts = Sequence[str]
Translate = Callable[[Texts, int, float], list[tuple[str, bool]]]  # with a beam and alpha: text, whether it was cut


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--src", type=Path, metavar="FILE", help="sources (default: those of the test split)")
    parser.add_argument("--ref", type=Path, metavar="FILE", help="their references")
    parser.add_argument("--sentences", type=int, default=1000, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=100, metavar="N", help="of outputs (default: %(default)s)")
    parser.add_argument("--tokenize", default="13a", metavar="NAME", help="of sacreBLEU (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args(argv)
    if (arguments.src is None) != (arguments.ref is None):
        raise ConfigError("--src and --ref belong together: give both")
    if arguments.sentences < 1 or arguments.max_length < 1:
        raise ConfigError("--sentences and --max-length must be at least 1")
    names = ("src", "ref", "sentences", "max_length", "tokenize")
    report = measure(arguments.run, **{name: getattr(arguments, name) for name in names})
    print(json.dumps(report, indent=1) if arguments.json else markdown(report))
    return 0


def measure(
    path: str, *, src: Path | None, ref: Path | None, sentences: int, max_length: int, tokenize: str
) -> dict[str, Any]:
    """Translations, scores and logits of all engines beside those of the run."""
    exported = Exported.load(path)
    config = exported.config
    given = (
        EvaluationSet.from_split(config.data, config.data.test_split)
        if src is None or ref is None
        else EvaluationSet.from_files(src, [ref])
    )
    assert given.sources is not None  # both ways have them
    texts, references = given.sources[:sentences], [side[:sentences] for side in given.references]
    scorer, ours = Scorer(tokenize), Translator.load(path, device="cpu", precision="fp32")
    report: dict[str, Any] = {"run": Path(path).name, "sentences": len(texts), "searches": [], "logits": {}}
    with tempfile.TemporaryDirectory(prefix="engines-") as directory:
        for to in ("hf", "ct2", "onnx"):
            stage(f"exporting to {to}")
            export(exported, to, Path(directory) / to)
        report["same_weights"] = _same_weights(exported, Path(directory) / "hf")
        engines = {
            "Hugging Face Marian": _huggingface(Path(directory) / "hf", max_length),
            "CTranslate2": _ours(CTranslate2Translator(Path(directory) / "ct2", device="cpu"), max_length),
        }
        for beam, alpha in ((1, 0.0), (config.search.beam, 0.0), (config.search.beam, config.search.alpha)):
            stage(f"beam {beam}, alpha {alpha}")
            wanted, _ = zip(*_ours(ours, max_length)(texts, beam, alpha), strict=True)
            rows = {
                name: tuple(zip(*translate(texts, beam, alpha), strict=True)) for name, translate in engines.items()
            }
            report["searches"] += [
                {
                    "engine": name,
                    "beam": beam,
                    "alpha": alpha,
                    "same": sum(map(str.__eq__, wanted, found)),
                    "cut": sum(cut),
                    "same_of_ended": sum(a == b for a, b, is_cut in zip(wanted, found, cut, strict=True) if not is_cut),
                    "bleu": scorer.score(found, references)["bleu"].score,
                    "our_bleu": scorer.score(wanted, references)["bleu"].score,
                }
                for name, (found, cut) in rows.items()
            ]
        stage("logits")
        report["logits"] = _logit_differences(exported, Path(directory), texts[:_BATCH], wanted[:_BATCH])
    return report


def _ours(translator: Translator, max_length: int) -> Translate:
    def translate(texts: Texts, beam: int, alpha: float) -> list[tuple[str, bool]]:
        limits: Any = {"max_length": max_length, "max_length_offset": max_length, "allow_unknown": False}
        found = translator.translate_nbest(texts, nbest=1, beam=beam, alpha=alpha, length_penalty="power", **limits)
        return [(best.text, best.ids[-1:] not in ((), (EOS_ID,))) for (best,) in found]

    return translate


def _huggingface(directory: Path, max_length: int) -> Translate:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSeq2SeqLM.from_pretrained(directory, dtype=torch.float32).eval()
    never = [*model.generation_config.bad_words_ids, [tokenizer.unk_token_id]]

    @torch.inference_mode()
    def translate(texts: Texts, beam: int, alpha: float) -> list[tuple[str, bool]]:
        options = {"num_beams": beam, "length_penalty": alpha, "max_length": max_length + 1, "bad_words_ids": never}
        found: list[tuple[str, bool]] = []
        for first in range(0, len(texts), _BATCH):
            inputs = tokenizer(list(texts[first : first + _BATCH]), return_tensors="pt", padding=True)
            rows = model.generate(**inputs, **options)
            ended = (rows[:, 1:] == tokenizer.eos_token_id).any(1).tolist()
            outputs = tokenizer.batch_decode(rows, skip_special_tokens=True)
            found += [(text, not has_ended) for text, has_ended in zip(outputs, ended, strict=True)]
        return found

    return translate


def _same_weights(exported: Exported, directory: Path) -> bool:
    """Whether what comes back from Hugging Face's form has the weights of the run, bit for bit."""
    back = Exported.load(directory).model.state_dict()
    ours = exported.model.state_dict()
    return ours.keys() == back.keys() and all(torch.equal(ours[name], back[name]) for name in ours)


@torch.inference_mode()
def _logit_differences(exported: Exported, directory: Path, sources: Texts, targets: Texts) -> dict[str, float]:
    """The largest difference of a logit, by teacher forcing."""
    import onnxruntime
    from transformers import AutoModelForSeq2SeqLM

    src = pad([[*ids, EOS_ID] for ids in exported.tokenizer.source.encode(sources)])
    tgt = pad([[BOS_ID, *ids] for ids in exported.tokenizer.encode(targets)])
    model = exported.model.float()
    logits, real = model(src, tgt), tgt != PAD_ID
    real[:, 0] = True
    theirs = AutoModelForSeq2SeqLM.from_pretrained(directory / "hf", dtype=torch.float32).eval()
    found = theirs(input_ids=src, attention_mask=src != PAD_ID, decoder_input_ids=tgt).logits
    encoder, decoder = (
        onnxruntime.InferenceSession(directory / f"onnx/{name}.onnx") for name in ("encoder", "decoder")
    )
    memory = encoder.run(None, {encoder.get_inputs()[0].name: src.numpy()})
    keys, values = (x[:, :, :, :0] for x in memory[:2])
    names, steps = [one.name for one in decoder.get_inputs()], []
    for step in range(tgt.size(1)):
        inputs = (tgt[:, step].numpy(), *memory, keys, values)
        step_logits, keys, values = decoder.run(None, dict(zip(names, inputs, strict=True)))
        steps.append(torch.from_numpy(step_logits))
    others = {"Hugging Face Marian": found[..., : logits.size(-1)], "ONNX Runtime": torch.stack(steps, 1)}
    return {name: (other - logits)[real].abs().max().item() for name, other in others.items()}


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    name = f"{report['run']}, {report['sentences']:,} sentences"
    lines = [
        f"| {name} | beam | alpha | the same translation | cut at the limit | BLEU | BLEU of the run |",
        f"| --- |{' ---: |' * 6}",
    ]
    for row in report["searches"]:
        scores = f"{row['bleu']:.2f} | {row['our_bleu']:.2f}"
        lines.append(
            f"| {row['engine']} | {row['beam']} | {row['alpha']:g} | {row['same']:,} | {row['cut']:,} | {scores} |"
        )
    kept = "the same bits" if report["same_weights"] else "other bits"
    differences = [f"{name} {value:.1e}" for name, value in report["logits"].items()]
    logits = f"Largest difference of a logit: {', '.join(differences)}."
    return "\n".join([*lines, "", f"Weights that come back from Hugging Face's form: {kept}. {logits}"])


if __name__ == "__main__":
    run(main)
