"""Models for other engines, and for the hub: `transformer export RUN --to FORMAT --output DIR`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from transformer.data.vocabulary_tokenizer import VocabularyTokenizer
from transformer.errors import ExportError
from transformer.interop import ctranslate2, graphs, huggingface, opus, usage
from transformer.interop.card import CardOptions, model_card
from transformer.interop.exported import Exported, new_directory
from transformer.interop.tokenizer_files import piece_names, write_own, write_sentencepiece, write_vocabularies
from transformer.training.checkpoint import save_checkpoint, save_model
from transformer.training.integrity import averaged_steps, sha256

DESCRIPTION = "export.json"


class Exporter(NamedTuple):
    """A format: how models are written in it, and how it is spoken of.

    `write` takes a model, an existing directory and a precision, and returns notes for the user. It raises ExportError
    for a model that the format has no place for.
    """

    title: str
    library: str  # as the hub calls it
    usage: str
    write: Callable[[Exported, Path, str], list[str]]
    precisions: tuple[str, ...] = ("fp32",)


def export(
    exported: Exported,
    to: str,
    output: Path,
    *,
    precision: str = "fp32",
    options: CardOptions | None = None,
    place: str | None = None,
) -> list[str]:
    """Write a model into a new directory, complete or not at all; returns notes for the user.

    Args:
        to: one of `EXPORTERS`.
        output: must not exist, or be empty.
        precision: `fp32`, or for CTranslate2 `int8`.
        options: of the model card.
        place: where the card says that the model is; by default the name of the directory.

    Raises:
        ExportError: the format does not exist, has no place for the model or the precision, lacks a package, or the
            directory exists.
        OSError: it cannot be written.
    """
    if to not in EXPORTERS:
        raise ExportError(f"format={to!r} is not one of {', '.join(EXPORTERS)}")
    exporter = EXPORTERS[to]
    if precision not in exporter.precisions:
        raise ExportError(f"{exporter.title}: precision={precision} is not one of {', '.join(exporter.precisions)}")
    with new_directory(output) as directory:
        notes = exporter.write(exported, directory, precision)
        (directory / DESCRIPTION).write_text(_described(exported, to, precision), encoding="utf-8")
        text = usage.usage_text(exporter.usage, place or output.name, is_separate=exported.tokenizer.is_separate)
        card = model_card(exported, options or CardOptions(), directory, text, exporter.library)
        (directory / "README.md").write_text(card, encoding="utf-8")
    return notes


def _described(exported: Exported, to: str, precision: str) -> str:
    weights = None if exported.checkpoint is None else exported.checkpoint / "model.safetensors"
    described = {
        "format": to,
        "precision": precision,
        "checkpoint": exported.origin,
        "weights_sha256": None if weights is None or not weights.is_file() else sha256(weights),
        "max_positions": exported.num_positions,
        "ids": {"pad": PAD_ID, "unk": UNK_ID, "bos": BOS_ID, "eos": EOS_ID},
        "version": sys.modules["transformer"].__version__,
    }
    return f"{json.dumps(described, indent=1)}\n"


def read_description(directory: Path) -> dict[str, object]:
    """What `export` wrote into a directory of itself; empty if it did not, or not in this form."""
    try:
        found = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_own(exported: Exported, directory: Path, precision: str) -> list[str]:  # noqa: ARG001
    if exported.checkpoint is None:  # which checks that the configuration describes the model
        save_model(exported.model, directory, exported.shared_config, exported.tokenizer)
        return []
    weights, steps = exported.model.state_dict(), averaged_steps(exported.checkpoint / "model.safetensors")
    save_checkpoint(directory, exported.shared_config, exported.tokenizer, weights, averaged_steps=steps)
    return []


def _write_huggingface(exported: Exported, directory: Path, precision: str) -> list[str]:  # noqa: ARG001
    return huggingface.write_huggingface(exported, directory)


def _write_ctranslate2(exported: Exported, directory: Path, precision: str) -> list[str]:
    tokenizer, search = exported.tokenizer, exported.config.search
    source, target = (piece_names(side, range(len(side))) for side in (tokenizer.source, tokenizer))
    ctranslate2.write_model(
        exported.model,
        source,
        target,
        directory,
        num_positions=exported.num_positions,
        is_int8=precision == "int8",
        # What the model's own search never puts out, no user of the directory has to suppress.
        never=() if search.allow_unknown else (PAD_ID, BOS_ID),
    )
    _write_tokenizers(exported, directory)
    notes = _notes_on_tags(exported)
    if exported.ranks_otherwise:
        notes.append(
            f"CTranslate2 divides log P by |Y|^alpha, not by ((5 + |Y|) / 6)^{search.alpha:g} as this model's search: "
            "give its users an alpha, or train and score with search.length_penalty=power"
        )
    return notes


def _write_onnx(exported: Exported, directory: Path, precision: str) -> list[str]:  # noqa: ARG001
    graphs.write_onnx(exported.model, directory)
    _write_tokenizers(exported, directory)
    write_vocabularies(exported.tokenizer, directory)
    return _notes_on_tags(exported)


def _write_torch(exported: Exported, directory: Path, precision: str) -> list[str]:  # noqa: ARG001
    graphs.write_torch(exported.model, directory)
    _write_tokenizers(exported, directory)
    write_vocabularies(exported.tokenizer, directory)
    return _notes_on_tags(exported)


def _write_tokenizers(exported: Exported, directory: Path) -> None:
    """For `translate --engine`, and for those who do without this package."""
    write_own(exported, directory)
    write_sentencepiece(exported.tokenizer, directory)


def _notes_on_tags(exported: Exported) -> list[str]:
    """How programs that read the pieces of a text themselves give it its tag."""
    if not (tags := exported.config.data.tags):
        return []
    if isinstance(exported.tokenizer.source, VocabularyTokenizer):
        how = f"put {tags[0]}, which the SentencePiece model does not know, before the pieces of each text"
    else:
        how = f"begin each text with its own, such as {tags[0]}"
    return [f"programs other than transformer translate add no tag: {how}"]


def _write_opus(exported: Exported, directory: Path, precision: str) -> list[str]:  # noqa: ARG001
    return [*opus.write_opus(exported, directory), *_notes_on_tags(exported)]


EXPORTERS = {
    "own": Exporter("this project", "attention-is-all-you-need", usage.OWN, _write_own),
    "hf": Exporter(huggingface.TITLE, "transformers", usage.HUGGING_FACE, _write_huggingface),
    "ct2": Exporter(ctranslate2.TITLE, "ctranslate2", usage.CTRANSLATE2, _write_ctranslate2, ("fp32", "int8")),
    "onnx": Exporter("ONNX", "onnx", usage.ONNX, _write_onnx),
    "torch": Exporter("torch.export", "pytorch", usage.TORCH, _write_torch),
    "opus": Exporter(opus.TITLE, "marian", usage.OPUS, _write_opus),
}
