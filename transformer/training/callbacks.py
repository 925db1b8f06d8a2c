"""Your own logger beside metrics.jsonl: a function that gets what is logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from transformer.errors import one_line
from transformer.progress import say
from transformer.training.rng import kept_rng_state

# `on_log(kind, step, values)`, called on the main process with
#   start           before the first update of this start, with the number of updates so far
#   train           values of metrics.jsonl, after their line is on disk, as are the next
#   validation      and validation/NAME for the sets of `data.also_validate`
#   nonfinite       an update that was skipped
#   end             after the last checkpoint, but not after an error
# Values are floats by name; text, such as the tokenizer of BLEU, is left out.
OnLog = Callable[[str, int, Mapping[str, float]], object]


class Notifier:
    """Calls a user's function; its errors do not end training.

    A logger that has lost its network must not cost a run: the first error is reported on stderr, and the function is
    called again the next time. Ctrl-C and SystemExit pass. It draws random numbers of its own.
    """

    def __init__(self, on_log: OnLog | None = None) -> None:
        self._on_log, self._has_failed = on_log, False

    def __call__(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        """Hand over the numbers among the values."""
        if self._on_log is None:
            return
        numbers = {name: float(x) for name, x in values.items() if isinstance(x, int | float)}
        with kept_rng_state():
            try:
                self._on_log(kind, step, numbers)
            except Exception as error:  # of any library
                if not self._has_failed:
                    reason = one_line(f"{type(error).__name__}: {error}")[:300]
                    say(f"warning: on_log failed at {kind} of step {step} ({reason}); training goes on")
                self._has_failed = True
