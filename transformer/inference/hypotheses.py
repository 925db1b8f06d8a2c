"""The hypotheses of a search: what they consist of, and in which order they are returned."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hypothesis:
    """One output of a search."""

    ids: list[int]  # with </s>, unless cut at the length limit
    log_prob: float  # log P(Y|X) in nats
    score: float  # log P over length penalty


NOTHING = Hypothesis([], -math.inf, -math.inf)  # where logits are NaN, or rules leave nothing
Key = Callable[[list[int]], Hashable]
# Where a hypothesis ends: how many tokens precede its last one, the row that had these, and the last token.
End = tuple[int, int, int]


class History:
    """The tokens of all hypotheses of a search, each with the row that it continued."""

    def __init__(self) -> None:
        self._steps: list[tuple[Array, Array]] = []

    def append(self, rows: Tensor, tokens: Tensor) -> None:
        """A step: for each new row (R,) the old one that it continues, and its token; on the host."""
        self._steps.append((rows.numpy(), tokens.numpy()))  # which are read one by one at a tenth of the cost

    def ids(self, end: End) -> list[int]:
        """The tokens of a hypothesis, first to last."""
        length, row, token = end
        ids = [token]
        for rows, tokens in reversed(self._steps[:length]):
            ids.append(int(tokens[row]))
            row = int(rows[row])
        return ids[::-1]


class Outputs:
    """The hypotheses of a sentence that are finished or cut, as they should be returned."""

    def __init__(self, history: History, key: Key | None) -> None:
        self._history, self._key = history, key
        self._outputs: list[tuple[float, float, End]] = []  # score, log P
        self._keys: list[Hashable] = []  # if there is a key
        self._num_finished = 0
        self._highest = math.inf  # no later output may score more

    def add_finished(self, score: float, log_prob: float, end: End) -> None:
        """Insert by score."""
        self._num_finished += 1
        if score > self._highest:
            return
        key = None
        if self._key is not None:
            key = self._key(self._history.ids(end))
            if key in self._keys:
                same = self._keys.index(key)
                if self._outputs[same][0] >= score:
                    return
                del self._outputs[same], self._keys[same]
        place = bisect.bisect_right(self._outputs, -score, key=lambda output: -output[0])
        self._outputs.insert(place, (score, log_prob, end))
        self._keys.insert(place, key)

    def add_cut(self, score: float, log_prob: float, end: End) -> None:
        """Append, unless a search for the best alone would have ended before."""
        if not math.isfinite(log_prob) or self._highest < math.inf:
            return
        key = None if self._key is None else self._key(self._history.ids(end))
        if key is None or key not in self._keys:
            self._outputs.append((score, log_prob, end))
            self._keys.append(key)

    def is_over(self, now: float, bound: float, beam: int, nbest: int) -> bool:
        """Whether to stop, the best alive hypothesis scoring `now` as it is and at most `bound`."""
        if not self._outputs:
            return not math.isfinite(now)
        has_all = len(self._outputs) >= nbest
        is_pruned = has_all and self._outputs[nbest - 1][0] >= bound
        # The bound is loose. Counting alone does not do: with many beams all that finished may be improbable.
        if self._num_finished >= beam and self._outputs[0][0] >= now:
            self._highest = self._outputs[0][0]  # what follows fills up the list
        return is_pruned or (has_all and self._highest < math.inf) or not math.isfinite(now)

    def best(self, nbest: int) -> list[Hypothesis]:
        """The first `nbest`; the empty one if there is none."""
        best = self._outputs[:nbest]
        return [Hypothesis(self._history.ids(end), log_prob, score) for score, log_prob, end in best] or [NOTHING]
