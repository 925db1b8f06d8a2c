"""Parameters that are not trained: `train.freeze`."""

import fnmatch
from collections.abc import Collection, Iterable, Sequence

from torch import nn

from transformer.errors import ConfigError
from transformer.model.transformer import Transformer

EMBEDDINGS = "embeddings"  # the matrices that embed pieces, and the output projection where it is one of them


def freeze(model: Transformer, patterns: Sequence[str]) -> Transformer:
    """Leave the parameters out of training that the patterns name; returns the model.

    They have no gradient, no moments and no weight decay. ConfigError as of `frozen_names`.
    """
    frozen = frozen_names([name for name, _ in model.named_parameters()], patterns)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return model


def frozen_names(names: Collection[str], patterns: Iterable[str]) -> set[str]:
    """The parameters that patterns name.

    A pattern is a name of a parameter or of a module, which stands for all below it, with the wildcards of a shell; or
    `embeddings`. ConfigError if a pattern names none, or all parameters are named.
    """
    frozen: set[str] = set()
    for pattern in patterns:
        if not (matched := {name for name in names if _matches(name, pattern)}):
            top = dict.fromkeys(name.partition(".")[0] for name in names)
            raise ConfigError(
                f"train.freeze: {pattern!r} names no parameter of this model; at the top there are "
                f"{', '.join((*top, EMBEDDINGS))}, below them names such as {next(reversed([*names]))}"
            )
        frozen |= matched
    if patterns and frozen == {*names}:
        raise ConfigError(f"train.freeze={', '.join(patterns)}: names all parameters, so there is nothing to train")
    return frozen


def _matches(name: str, pattern: str) -> bool:
    if pattern == EMBEDDINGS:
        return name in ("embedding.weight", "embedding.target_weight")
    parts = name.split(".")
    paths = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return any(fnmatch.fnmatchcase(path, pattern) for path in paths)


def numbers_of_parameters(model: nn.Module) -> str:
    """How many parameters there are and, if some are frozen, how many are trained."""
    number = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{number:,}" if trained == number else f"{number:,}, {trained:,} of them trained"
