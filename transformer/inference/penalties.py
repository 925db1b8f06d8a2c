"""Length penalties: what log P is divided by, so that long hypotheses can win.

A beam search prunes by what a hypothesis can reach at its length limit, so no penalty may fall with the length.
"""

from collections.abc import Callable

# From |Y|, which counts </s>, and α ≥ 0.
Penalty = Callable[[int, float], float]


def length_penalty(length: int, alpha: float) -> float:
    """The length penalty ((5 + |Y|) / 6)^α of Wu et al. 2016; |Y| counts </s>."""
    return float(((5 + length) / 6) ** alpha)


def power_penalty(length: int, alpha: float) -> float:
    """|Y|^α, as in fairseq, Hugging Face and Marian.

    α = 1 ranks by the mean log-probability of a token.
    """
    return float(length**alpha)


def no_penalty(length: int, alpha: float) -> float:  # noqa: ARG001
    """1: hypotheses are ranked by log P."""
    return 1.0


# By their names in `search.length_penalty`.
PENALTIES: dict[str, Penalty] = {"gnmt": length_penalty, "power": power_penalty, "none": no_penalty}


def check_alpha(alpha: float) -> None:
    """ValueError if α is negative: a beam search would prune what can still win."""
    if not alpha >= 0:  # NaN neither
        raise ValueError(f"alpha={alpha} must be at least 0")
