"""Kill real programs at random kill points, restart them, and compare with undisturbed runs.

python tests/reliability/kill_points.py --kills 100 --seed 1 [--only translate]

A run lifecycle goes from the first start to the end of a run, with several kills in between. Its kills are derived from
its seed: `--kills 1 --seed S`, with the same `--only`, replays the lifecycle with seed S. Ctrl-C stops and prints the
table of the lifecycles so far. Exits with status 1 if anything was lost. Linux only.
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

from run_lifecycle import SIGNALS, Harness, Kill

# Kill points with their number of events, from which one is drawn: about as many as one start has (of the first three
# updates only, where a start may have more), so that most kills are reached.
EARLY = {"importing": 1500, "claiming the run": 3, "training the tokenizer": 14, "building the cache": 23}
MIDDLE = {
    "writing metrics": 5,
    "saving a checkpoint": 40,
    "saving the best": 25,
    "pruning": 22,
    "inference": 7,
    "any time": 1,
    "mid-write": 8,
}
LATE = {"final save": 14}
CORPORA = {"building the cache": 41}
TUNING = {"importing": 1500, "claiming the run": 3, "training the tokenizer": 4, "initialising": 3}
AVERAGE = {"importing": 1500, "averaging": 17}
EVALUATE = {"importing": 1500, "writing the output": 3, "inference": 1}
TRANSLATE = {"importing": 1500, "writing the output": 20, "inference": 1}


def draw_kill(point: str, counts: dict[str, int], numbers: random.Random) -> Kill:
    """Draw a kill at one of the events of a kill point."""
    if point == "mid-write":
        return Kill(point, numbers.randint(1, counts[point]), "XFSZ", limit=numbers.randint(1, 20_000))
    signals = numbers.choices(list(SIGNALS), weights=(5, 2, 2, 1))[0]
    number = numbers.randint(1, counts[point])
    if point == "any time":
        return Kill(point, number, signals, delay_s=numbers.uniform(0.1, 6.0))
    if point == "inference":
        return Kill(point, number, signals, delay_s=numbers.uniform(0.0, 0.1))
    # Sometimes just after an event, inside the following operation.
    return Kill(point, number, signals, delay_s=numbers.choice((0.0, 0.0, numbers.uniform(0.0, 0.004))))


def drawing(counts: dict[str, int], number: int) -> Callable[[random.Random], list[Kill]]:
    """A function that draws this many kills, one kill point after the other."""

    def draw(numbers: random.Random) -> list[Kill]:
        points = [*counts] * number
        return [draw_kill(point, counts, numbers) for point in points[1 : number + 1]]

    return draw


def draw_training(numbers: random.Random) -> list[Kill]:
    """Kills of a new training: some early ones in chronological order, then some later ones."""
    early = sorted(numbers.sample(range(len(EARLY)), 2))
    middle = [*numbers.sample(list(MIDDLE), 4), *numbers.choices(list(MIDDLE), k=1)]
    chosen = [(list(EARLY)[place], EARLY) for place in early] + [(point, MIDDLE) for point in middle]
    return [draw_kill(point, counts, numbers) for point, counts in (*chosen, ("final save", LATE))]


def draw_resumption(numbers: random.Random) -> list[Kill]:
    """Kills of a training that resumes after averaging."""
    chosen = [("claiming the run", {"claiming the run": 2}), ("averaging", {"averaging": 6})]
    chosen += [(point, MIDDLE) for point in numbers.sample(list(MIDDLE), 2)] + [("final save", LATE)]
    return [draw_kill(point, counts, numbers) for point, counts in chosen]


def draw_corpora(numbers: random.Random) -> list[Kill]:
    """Kills of a run on several corpora: while they are read and chosen from, and later."""
    chosen = [("building the cache", CORPORA)] * 2 + [(point, MIDDLE) for point in numbers.sample(list(MIDDLE), 4)]
    return [draw_kill(point, counts, numbers) for point, counts in (*chosen, ("final save", LATE))]


def draw_tuning(numbers: random.Random) -> list[Kill]:
    """Kills of a run that begins with trained weights: before its first checkpoint, and later."""
    chosen = [(point, TUNING) for point in numbers.sample(list(TUNING), 2)]
    chosen += [(point, MIDDLE) for point in numbers.sample(list(MIDDLE), 3)] + [("final save", LATE)]
    return [draw_kill(point, counts, numbers) for point, counts in chosen]


# Kinds of lifecycles, repeated in this order: most of them train.
KINDS = ("train", "resume", "train", "average", "train", "evaluate", "train", "translate")
DRAWS = {
    "train": draw_training,
    "resume": draw_resumption,
    "tune": draw_tuning,
    "corpora": draw_corpora,
    "average": drawing(AVERAGE, 6),
    "evaluate": drawing(EVALUATE, 4),
    "translate": drawing(TRANSLATE, 4),
}


def table(kills: Sequence[tuple[str, Kill, bool]]) -> Iterator[str]:
    """Markdown table, kill point by signal: numbers of kills tried, survived and lost."""
    columns = [*SIGNALS, "XFSZ"]
    tried, lost = collections.Counter[tuple[str, str]](), collections.Counter[tuple[str, str]]()
    for kind, kill, is_lost in kills:
        row = f"{kind}: {kill.point}"
        for key in ((row, kill.signals), (row, "all"), ("all", kill.signals), ("all", "all")):
            tried[key] += 1
            lost[key] += is_lost
    rows = sorted({row for row, _ in tried} - {"all"})
    yield "tried/survived/lost"
    yield f"| kill point | {' | '.join(columns)} | all |"
    yield f"| --- |{' --- |' * (len(columns) + 1)}"
    for row in (*rows, "all"):
        keys = [(row, column) for column in (*columns, "all")]
        cells = [f"{tried[key]}/{tried[key] - lost[key]}/{lost[key]}" if tried[key] else "" for key in keys]
        yield f"| {row} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kills", type=int, default=100, help="run lifecycles until there were this many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the first lifecycle; it increases by 1")
    parser.add_argument("--only", choices=DRAWS, help="only this kind of lifecycle")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument(
        "--fork", action="store_true", help="fork programs from a process that has imported torch, where possible"
    )
    parser.add_argument(
        "--background", action="store_true", help="write checkpoints while training goes on, as on CUDA"
    )
    parser.add_argument("--directory", type=Path, help="for lifecycles with faults; default: a new one in /tmp")
    arguments = parser.parse_args(argv)
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="kills-"))
    directory.mkdir(parents=True, exist_ok=True)
    harness = Harness(
        directory.resolve(), arguments.precision, is_forked=arguments.fork, in_background=arguments.background
    )
    kinds = KINDS if arguments.only is None else (arguments.only,)
    harness.prepare(kinds)
    kills: list[tuple[str, Kill, bool]] = []
    slowest = 0.0
    num_faulty = 0
    seed = arguments.seed
    with contextlib.suppress(KeyboardInterrupt):  # prints the table so far
        while len(kills) < arguments.kills:
            kind = kinds[(seed - 1) % len(kinds)]
            done, lifecycle = harness.run(kind, seed, DRAWS[kind](random.Random(seed)))
            kills += [(kind, kill, bool(lifecycle.faults)) for kill, _ in done]
            slowest = max([slowest, *(ending.took_s or 0.0 for _, ending in done)])
            num_faulty += bool(lifecycle.faults)
            seed += 1
    print("\n".join(table(kills)))
    print(f"{len(kills)} kills in {seed - arguments.seed} lifecycles; {num_faulty} lifecycles with faults")
    print(f"slowest to end after its first signal: {slowest:.1f} s")
    if num_faulty:
        print(f"the files of lifecycles with faults are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
