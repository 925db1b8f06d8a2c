"""Kill real trainings and translations at drawn moments, start them again, and compare with undisturbed ones.

python tests/reliability/kill_points.py --kills 100 --seed 1 [--only translate]

A life is one run from its first start to its end, killed several times on the way. What kills it is drawn from the seed
of the life alone: `--kills 1 --seed S`, with the same `--only`, repeats the life that has the seed S. Ctrl-C ends it
with the table of the lives so far. Status 1 if anything was lost. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from run_lifecycle import SIGNALS, Kill, Laboratory

# How many events of each moment there may be before one of them is the one; about as many as there are in one start
# (only those of the first three updates, where a start may go through all), so that most are reached.
EARLY = {"importing": 1500, "claiming the run": 3, "learning the tokenizer": 14, "building the cache": 23}
MIDDLE = {
    "writing metrics": 5,
    "saving a checkpoint": 40,
    "saving the best": 25,
    "pruning": 22,
    "inference": 7,
    "any time": 1,
    "in the middle of a write": 8,
}
LATE = {"final save": 14}
AVERAGE = {"importing": 1500, "averaging": 17}
EVALUATE = {"importing": 1500, "writing the output": 3, "inference": 1}
TRANSLATE = {"importing": 1500, "writing the output": 20, "inference": 1}


def draw_kill(moment: str, counts: dict[str, int], numbers: random.Random) -> Kill:
    """One kill at a moment that has so many events."""
    if moment == "in the middle of a write":
        return Kill(moment, numbers.randint(1, counts[moment]), "XFSZ", limit=numbers.randint(1, 20_000))
    signals = numbers.choices(list(SIGNALS), weights=(5, 2, 2, 1))[0]
    number = numbers.randint(1, counts[moment])
    if moment == "any time":
        return Kill(moment, number, signals, delay_s=numbers.uniform(0.1, 6.0))
    if moment == "inference":
        return Kill(moment, number, signals, delay_s=numbers.uniform(0.0, 0.1))
    # Sometimes just after an event: inside of what follows it.
    return Kill(moment, number, signals, delay_s=numbers.choice((0.0, 0.0, numbers.uniform(0.0, 0.004))))


def drawing(counts: dict[str, int], number: int) -> Callable[[random.Random], list[Kill]]:
    """Draws so many kills, of each moment in turn."""

    def draw(numbers: random.Random) -> list[Kill]:
        moments = [*counts] * number
        return [draw_kill(moment, counts, numbers) for moment in moments[1 : number + 1]]

    return draw


def draw_training(numbers: random.Random) -> list[Kill]:
    """Kills of a training from its beginning: some early ones in the order of things, some of any later moment."""
    early = sorted(numbers.sample(range(len(EARLY)), 2))
    middle = [*numbers.sample(list(MIDDLE), 4), *numbers.choices(list(MIDDLE), k=1)]
    chosen = [(list(EARLY)[place], EARLY) for place in early] + [(moment, MIDDLE) for moment in middle]
    return [draw_kill(moment, counts, numbers) for moment, counts in (*chosen, ("final save", LATE))]


def draw_going_on(numbers: random.Random) -> list[Kill]:
    """Kills of a training that goes on after an average was made."""
    chosen = [("claiming the run", {"claiming the run": 2}), ("averaging", {"averaging": 6})]
    chosen += [(moment, MIDDLE) for moment in numbers.sample(list(MIDDLE), 2)] + [("final save", LATE)]
    return [draw_kill(moment, counts, numbers) for moment, counts in chosen]


# The kinds of lives in turn: most of them train.
KINDS = ("train", "go on", "train", "average", "train", "evaluate", "train", "translate")
DRAWS = {
    "train": draw_training,
    "go on": draw_going_on,
    "average": drawing(AVERAGE, 6),
    "evaluate": drawing(EVALUATE, 4),
    "translate": drawing(TRANSLATE, 4),
}


def table(kills: Sequence[tuple[str, Kill, bool]]) -> Iterator[str]:
    """Moment by signal: how many kills there were and how many of them lost something."""
    columns = [*SIGNALS, "XFSZ"]
    tried, lost = collections.Counter[tuple[str, str]](), collections.Counter[tuple[str, str]]()
    for kind, kill, is_lost in kills:
        row = f"{kind}: {kill.moment}"
        for key in ((row, kill.signals), (row, "all"), ("all", kill.signals), ("all", "all")):
            tried[key] += 1
            lost[key] += is_lost
    rows = sorted({row for row, _ in tried} - {"all"})
    yield "tried/survived/lost"
    yield f"| moment | {' | '.join(columns)} | all |"
    yield f"| --- |{' --- |' * (len(columns) + 1)}"
    for row in (*rows, "all"):
        keys = [(row, column) for column in (*columns, "all")]
        cells = [f"{tried[key]}/{tried[key] - lost[key]}/{lost[key]}" if tried[key] else "" for key in keys]
        yield f"| {row} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="go on until there were so many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first life; each next one has the next")
    parser.add_argument("--only", choices=DRAWS, help="this kind of life instead of all in turn")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--fork", action="store_true", help="fork most programs from one that imported torch")
    parser.add_argument("--directory", type=Path, help="keep lives with faults here instead of in a new one of /tmp")
    arguments = parser.parse_args(argv)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="kills-"))
    directory.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(directory.resolve(), arguments.precision, is_forked=arguments.fork)
    kinds = KINDS if arguments.only is None else (arguments.only,)
    laboratory.prepare(kinds)
    kills: list[tuple[str, Kill, bool]] = []
    slowest = 0.0
    num_faulty = 0
    seed = arguments.seed
    with contextlib.suppress(KeyboardInterrupt):  # enough seen: the table of what there was
        while len(kills) < arguments.kills:
            kind = kinds[(seed - 1) % len(kinds)]
            done, life = laboratory.live(kind, seed, DRAWS[kind](random.Random(seed)))
            kills += [(kind, kill, bool(life.faults)) for kill, _ in done]
            slowest = max([slowest, *(ending.took_s or 0.0 for _, ending in done)])
            num_faulty += bool(life.faults)
            seed += 1
    print("\n".join(table(kills)))
    print(f"{len(kills)} kills in {seed - arguments.seed} lives; {num_faulty} lives with faults")
    print(f"slowest to end after its first signal: {slowest:.1f} s")
    if num_faulty:
        print(f"what is left of lives with faults is in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
