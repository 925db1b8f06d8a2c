"""A model card, README.md of a model on the hub: what the run knows of its data, scores, configuration and files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from transformer.config import Config, CorpusEntry, DataConfig
from transformer.errors import ExportError
from transformer.interop.exported import Exported
from transformer.interop.marian_model import UNKNOWN_CORPUS
from transformer.training.integrity import averaged_steps, sha256
from transformer.training.metrics import bleu_tokenizer, read_metrics
from transformer.training.run_directory import INITIALIZATION, step_of

_HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
_LANGUAGE = r"[a-z]{2,3}"
_METRICS = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++", "ter": "TER"}
# Of a report, what says how it was translated.
_SEARCH = ("beam", "alpha", "length_penalty", "precision", "tag", "too_long", "split_sentences")


@dataclass(frozen=True)
class CardOptions:
    """What a run does not know of itself.

    Attributes:
        name: of the model; by default that of its run.
        licence: an identifier as of the hub, such as `cc-by-4.0`; None: the card says that there is none.
        scores: outputs of `transformer evaluate RUN --json`.
    """

    name: str | None = None
    licence: str | None = None
    scores: Sequence[Mapping[str, Any]] = ()


def read_scores(paths: Sequence[Path], origin: str) -> list[dict[str, Any]]:
    """The reports that `transformer evaluate RUN --json` printed, one a line, of a checkpoint.

    ExportError for a file that has none, and for scores of another checkpoint.
    """
    found = []
    for path in paths:
        try:
            reports = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise ExportError(f"{path}: is not the output of transformer evaluate RUN --json") from None
        for report in reports:
            if not _is_report(report):
                raise ExportError(f"{path}: is not the output of transformer evaluate RUN --json")
            if not _is_same(report["checkpoint"], origin):
                raise ExportError(f"{path}: has scores of {report['checkpoint']}, and the model is {origin}")
            found += [report, *report.get("also", [])]
    return found


def _is_report(report: Any) -> bool:
    if not isinstance(report, dict) or not isinstance(report.get("also", []), list):
        return False
    texts = [report.get("checkpoint"), report.get("corpus")]
    scores = [(report[name], report.get(f"{name}_signature")) for name in _METRICS if name in report]
    is_scored = bool(scores) and all(isinstance(x, (int, float)) and isinstance(y, str) for x, y in scores)
    return is_scored and all(isinstance(text, str) for text in texts) and all(map(_is_report, report.get("also", [])))


def _is_same(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()


def model_card(exported: Exported, options: CardOptions, directory: Path, usage: str, library: str) -> str:
    """The card as Markdown with its metadata.

    Args:
        directory: with the other files of the model, whose checksums are listed.
        usage: Markdown, how to use them.
        library: that reads them, as the hub calls it.
    """
    name = options.name or _name_of(exported)
    sections = {
        "How to use": usage,
        "Scores": "\n".join(_scores(exported, options)),
        "Data": "\n".join(_data(exported)),
        "Training": "\n".join(_training(exported)),
        "Configuration": _configuration(exported.config),
        "Files": "\n".join(_files(directory)),
        "Licence": _licence(options.licence),
    }
    text = "".join(f"\n## {title}\n\n{body}\n" for title, body in sections.items() if body)
    return f"---\n{_metadata(exported, options, name, library)}---\n\n# {_line(name)}\n\n{_summary(exported)}\n{text}"


def _name_of(exported: Exported) -> str:
    return (exported.run or Path(exported.origin.partition("@")[0])).name


def _metadata(exported: Exported, options: CardOptions, name: str, library: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = exported.config.data
    results = [
        EvalResult(
            task_type="translation",
            dataset_type=_plain(report["corpus"]),
            dataset_name=report["corpus"],
            metric_type=metric.rstrip("+"),
            metric_name=label,
            metric_value=report[metric],
            metric_args={"signature": report[f"{metric}_signature"]},
        )
        for report in options.scores
        for metric, label in _METRICS.items()
        if metric in report
    ]
    languages = [code for code in (data.src_lang, data.tgt_lang) if re.fullmatch(_LANGUAGE, code)]
    metadata = ModelCardData(
        language=languages or None,
        license=options.licence,
        library_name=library,
        pipeline_tag="translation",
        tags=["translation", "transformer", "attention-is-all-you-need"],
        datasets=_hub_datasets(data) or None,
        base_model=_base_model(exported),
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    found: dict[str, Any] = metadata.to_dict()
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def _plain(name: str) -> str:
    """A name as an identifier: letters, digits, dots and hyphens."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "test"


def _hub_datasets(data: DataConfig) -> list[str]:
    """The corpora that are repositories of the hub; local files may look like one, but are not pinned to a commit."""
    entries = [(data.corpus, data.revision), *((entry.path, entry.revision) for entry in data.corpora)]
    return sorted({path for path, revision in entries if path and revision and re.fullmatch(_HUB_ID, path)})


def _base_model(exported: Exported) -> str | None:
    """The hub's model whose weights the run began with, or these are."""
    began = str(_initialization(exported).get("checkpoint", exported.origin if exported.run is None else ""))
    name, at, _ = began.partition("@")
    return name if at and re.fullmatch(_HUB_ID, name) else None


def _initialization(exported: Exported) -> dict[str, Any]:
    return {} if exported.run is None else _read_json(exported.run / INITIALIZATION)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _summary(exported: Exported) -> str:
    data, model = exported.config.data, exported.config.model
    number = sum(weight.numel() for weight in exported.model.state_dict().values())
    tokenizer = exported.tokenizer
    pieces = f"{len(tokenizer):,}"
    if tokenizer.is_separate:
        pieces = f"{len(tokenizer.source):,} and {pieces}"
    return (
        f"A Transformer that translates from `{data.src_lang}` to `{data.tgt_lang}`: {number:,} parameters, d_model "
        f"{model.d_model}, {model.num_layers} layers in the encoder and {model.num_decoder_layers or model.num_layers} "
        f"in the decoder, {model.num_heads} heads, {pieces} pieces of the vocabulary.{_tags(data)}"
    )


def _tags(data: DataConfig) -> str:
    listed = ", ".join(f"`{_line(tag)}`" for tag in data.tags[:20])
    return f" Its sources begin with a tag, such as {listed}." if listed else ""


def _scores(exported: Exported, options: CardOptions) -> Iterator[str]:
    if options.scores:
        yield from ("| test set | sentences | metric | score | signature |", "|---|---|---|---|---|")
        for report in options.scores:
            for metric, label in _METRICS.items():
                if metric in report:
                    corpus, signature = _cell(report["corpus"]), _cell(report[f"{metric}_signature"])
                    number = report.get("sentences", "")
                    yield f"| {corpus} | {number} | {label} | {report[metric]:.2f} | `{signature}` |"
        made = {f"{key} {report[key]}" for report in options.scores for key in _SEARCH if report.get(key) is not None}
        if made:
            yield f"\nTranslated with {', '.join(sorted(made))}. The signatures are sacreBLEU's."
    validation = _validation(exported)
    if validation:
        measures = [f"loss {validation['nll']:.4f} nats per piece"] if "nll" in validation else []
        if "bleu" in validation:
            measures.append(f"BLEU {validation['bleu']:.2f} (tokenizer {bleu_tokenizer(validation)})")
        if "chrf" in validation:
            measures.append(f"chrF {validation['chrf']:.2f}")
        yield f"\nOn the validation set, after {validation['step']:,} updates: {', '.join(measures)}."
    if not options.scores and not validation:
        yield "None were given."


def _validation(exported: Exported) -> dict[str, Any]:
    """The validation of the checkpoint, if the run has one."""
    if exported.run is None or exported.checkpoint is None:
        return {}
    step = step_of(exported.checkpoint)
    records = [x for x in read_metrics(exported.run) if x["kind"] == "validation" and x["step"] == step]
    return records[-1] if records else {}


def _data(exported: Exported) -> Iterator[str]:
    data, start = exported.config.data, _last_start(exported)
    entries: list[CorpusEntry | None] = [*data.corpora] or [None]
    for entry in entries:
        name, revision = (data.corpus, data.revision) if entry is None else (entry.name, entry.revision)
        if name == UNKNOWN_CORPUS:
            yield "- what it was trained on is not known"
            continue
        at = f" at revision `{revision}`" if revision else ""
        subset = data.subset if entry is None else entry.subset
        part = f", subset `{subset}`" if subset and revision else ""
        yield f"- trained on `{name}`{at}{part}"
    if isinstance(start.get("pairs"), int):
        yield f"- {start['pairs']:,} pairs for training, after what `data` in the configuration drops"
    if isinstance(prints := start.get("data"), dict):
        for split, fingerprint in prints.items():
            kind = "" if split == "tokenizer" else " data"
            yield f"- fingerprint of the {_line(str(split))}{kind}: `{_line(str(fingerprint))}`"
    yield (
        f"- {'separate' if data.separate_vocabularies else 'joint'} SentencePiece "
        f"{'vocabularies' if data.separate_vocabularies else 'vocabulary'} ({exported.tokenizer.type})"
    )


def _last_start(exported: Exported) -> dict[str, Any]:
    """The last line of starts.jsonl; a killed write may have left half of one."""
    path = None if exported.run is None else exported.run / "starts.jsonl"
    for line in reversed(path.read_bytes().splitlines() if path is not None and path.is_file() else []):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _training(exported: Exported) -> Iterator[str]:
    start, began = _last_start(exported), _initialization(exported)
    weights = None if exported.checkpoint is None else exported.checkpoint / "model.safetensors"
    steps = [] if weights is None else averaged_steps(weights)
    if steps:
        yield f"- the mean of the weights after the updates {', '.join(f'{step:,}' for step in steps)}"
    elif exported.checkpoint is not None and step_of(exported.checkpoint) >= 0:
        yield f"- the weights after {step_of(exported.checkpoint):,} updates"
    if began:
        source = str(began.get("checkpoint", "another model"))
        yield f"- began with the weights of `{_line(source)}`"
    if hours := _hours(exported):
        yield f"- {hours:.1f} hours on `{_line(str(start.get('device', 'a machine')))}`"
    if isinstance(versions := start.get("versions"), dict):
        named = [f"{name} {version}" for name, version in versions.items() if version]
        yield f"- {', '.join(map(_line, named))}"
    if start.get("revision"):
        yield f"- by revision `{_line(str(start['revision']))}` of the code"


def _hours(exported: Exported) -> float:
    """How long training took until the last record of the run."""
    records = [] if exported.run is None else read_metrics(exported.run)
    return max((record.get("elapsed_s", 0.0) for record in records), default=0.0) / 3600


def _configuration(config: Config) -> str:
    """What differs from the defaults, without where the run was."""
    shown = replace(config, run_dir=Config().run_dir, data=replace(config.data, cache_dir=DataConfig().cache_dir))
    lines = [line for line in shown.differences().splitlines() if not line.startswith("run_dir:")]
    text = "\n".join(lines) or "# the defaults: the paper's base model"
    return f"What differs from the defaults:\n\n```yaml\n{text}\n```"


def _files(directory: Path) -> Iterator[str]:
    yield from ("| file | bytes | SHA-256 |", "|---|---|---|")
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != "README.md":
            yield f"| {path.relative_to(directory).as_posix()} | {path.stat().st_size:,} | `{sha256(path)}` |"


def _licence(licence: str | None) -> str:
    if licence is None:
        return "None was given with the model: ask its author before you use it."
    return f"`{licence}`, as its author says."


def _cell(text: str) -> str:
    """Text within a cell of a table, which cannot end it."""
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Text within a line of Markdown, which can end neither it nor its code."""
    return " ".join(text.replace("`", "'").split())
