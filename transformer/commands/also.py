"""Other test sets beside the one that is scored: transformer evaluate RUN --also RUN|CORPUS ...

After fine-tuning, the score on the old test set shows what the model has forgotten.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformer.commands.outputs import check_output
from transformer.config import DataConfig
from transformer.errors import ConfigError, DataError
from transformer.inference.evaluation_set import EvaluationSet
from transformer.training.run_directory import saved_config


def other_sets(
    given: Sequence[str], split: str | None, data: DataConfig, outputs: Iterable[Path] = ()
) -> list[EvaluationSet]:
    """Read the test sets that `--also` names.

    Args:
        given: runs or checkpoints, whose corpora are meant, or values of `data.corpus`.
        split: of each; by default the test split of the run, or of `data`.
        data: of the run that is scored.
        outputs: files that will be written, which must not be some that are read.

    Raises:
        ConfigError: a run translates other languages, or an output would replace a file of a corpus.
        DataError: a corpus cannot be read or has no sentences.
    """
    sets = []
    for name in given:
        other = _data_of(name, data)
        texts = EvaluationSet.from_split(other, split or other.test_split)
        if not len(texts):
            raise DataError(f"--also {name}: there is nothing to score: {texts.name} is empty")
        for output in outputs:
            check_output(output, texts.files, other)
        sets.append(texts)
    return sets


def _data_of(name: str, data: DataConfig) -> DataConfig:
    """The data section of a run, or that of the scored run with another corpus."""
    if not (Path(name) / "config.yaml").is_file():
        return data.with_corpus(name)
    other = saved_config(Path(name)).data
    if (other.src_lang, other.tgt_lang) != (data.src_lang, data.tgt_lang):
        raise ConfigError(
            f"--also {name}: is a run from {other.src_lang!r} into {other.tgt_lang!r}, but the one that is scored "
            f"translates {data.src_lang!r} into {data.tgt_lang!r}"
        )
    return other
