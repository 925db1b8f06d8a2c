"""Soak test: memory growth, lost lines and leaked handles over many lines or hours. Linux only.

python tests/reliability/soak.py translate --lines 1000000    under a memory cap, killed, restarted, compared
python tests/reliability/soak.py train --minutes 60           with validation, BLEU and checkpoints every few seconds
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memory_growth import Growth, Sample, memory_growth, monitor, start

from transformer.cli import run
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, TrainingError

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = """
model: {d_model: 32, num_layers: 1, num_heads: 2, d_ff: 64}
data: {corpus: builtin, builtin_size: 5000, vocab_size: 400}
train: {tokens_per_update: 1024, max_tokens: 1024, warmup_steps: 50, lr_factor: 2.0, max_steps: 200, log_steps: 50,
        validate_steps: 200, save_steps: 200, save_minutes: null, keep_checkpoints: 3, precision: fp32, device: cpu}
"""
EVERY_S = 0.5
# Virtual memory on top of that mapped to translate nothing.
HEADROOM_MIB = 1024
LONG_LINE = "A man is sleeping. " * (10 * 2**20 // 19)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/soak"), help="for its files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the kills")
    commands = parser.add_subparsers(dest="command", required=True)
    translate = commands.add_parser("translate")
    translate.add_argument("--lines", type=int, default=1_000_000)
    translate.add_argument("--kills", type=int, default=8)
    translate.add_argument("--run", type=Path, help="translate with this run instead of a tiny model")
    train = commands.add_parser("train")
    train.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        raise ConfigError("soak.py needs /proc, which only Linux has")
    arguments.dir.mkdir(parents=True, exist_ok=True)
    (arguments.dir / "tiny.yaml").write_text(TINY)
    if arguments.command == "train":
        return _soak_training(arguments.dir, arguments.minutes)
    return _soak_translation(
        arguments.dir, arguments.lines, arguments.kills, arguments.run or _tiny_run(arguments.dir), arguments.seed
    )


def _soak_translation(directory: Path, num_lines: int, num_kills: int, model: Path, seed: int) -> int:
    log, source, empty = directory / "translate.log", directory / "source.gz", directory / "empty.gz"
    whole, killed = directory / "whole", directory / "killed"
    for path in (whole, killed):
        for old in (path, _part(path), _record(path)):
            old.unlink(missing_ok=True)

    def translate(output: Path, cap_mib: float | None, file: Path = source) -> subprocess.Popen[bytes]:
        arguments = [
            str(model),
            str(file),
            f"--output={output}",
            "--scores",
            "--beam=1",
            "--device=cpu",
            "--precision=fp32",
        ]
        return start([str(SCRIPTS / "translate.py"), *arguments], cap_mib=cap_mib, log=log)

    _write_lines(empty, [])
    samples = monitor(translate(directory / "nothing", None, empty), lambda: 0, every_s=0.02)
    need_mib = max(sample.peak_virtual_mib for sample in samples)
    cap_mib = need_mib + HEADROOM_MIB
    _log("lines", f"{num_lines:,}")
    _log("virtual memory", f"{need_mib:,.0f} MiB for no lines; cap {cap_mib:,.0f} MiB")

    _write_lines(source, _lines(num_lines, LONG_LINE))
    process = translate(whole, cap_mib)
    process.wait()
    number, error = num_lines // 2 + 1, log.read_text(encoding="utf-8").splitlines()[-1]
    # Too many pieces for the model, or more than the 4 MiB that a line may have.
    is_named = process.returncode == 2 and (f"sentence {number} has " in error or f"line {number}: longer " in error)
    _log("a line of 10 MB", "refused by its number before any was translated" if is_named else "NOT NAMED")

    _write_lines(source, _lines(num_lines, "A man is sleeping."))
    began = time.monotonic()
    process = translate(whole, cap_mib)
    samples = _at_work(monitor(process, lambda: _num_done(whole), every_s=EVERY_S))
    seconds = time.monotonic() - began
    _log("undisturbed", f"status {process.returncode}, {num_lines / seconds:,.0f} lines/s")
    found = memory_growth(samples)
    _log_growth(found, unit="lines done", at=(samples[len(samples) // 4].progress, samples[-1].progress))

    draw = random.Random(seed)
    ends = []
    for share in sorted(draw.uniform(0.0, 0.95) for _ in range(num_kills)):
        process = translate(killed, cap_mib)
        monitor(process, lambda: _num_done(killed), until=_reached(int(share * num_lines)), every_s=0.02)
        time.sleep(draw.random())
        number = draw.choice(SIGNALS)
        process.send_signal(number)
        ends.append(f"{number.name} after {_num_done(killed):,} ({process.wait()})")
    process = translate(killed, cap_mib)
    process.wait()
    for end in ends:
        _log("stopped by", end)
    is_same = whole.is_file() and killed.is_file() and whole.read_bytes() == killed.read_bytes()
    is_complete = whole.is_file() and sum(1 for _ in whole.open("rb")) == num_lines
    _log("after restarts", f"{'the same bytes' if is_same else 'OTHER BYTES'} as undisturbed")
    _log("lines out", "as many as in" if is_complete else "NOT AS MANY AS IN")
    return _verdict(found.is_constant and is_named and is_same and is_complete)


def _soak_training(directory: Path, minutes: float) -> int:
    run_dir = directory / f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    values = ("max_steps=1000000000", "log_steps=10", "validate_steps=50", "save_steps=30")
    command = [str(SCRIPTS / "train.py"), str(directory / "tiny.yaml"), f"run_dir={run_dir}"]
    process = start([*command, *(f"train.{value}" for value in values)], log=directory / "train.log")
    metrics = run_dir / "metrics.jsonl"

    def is_training() -> int:
        return int(metrics.is_file() and metrics.stat().st_size > 0)

    preparing = monitor(process, is_training, until=_reached(1), every_s=EVERY_S)
    samples = monitor(process, is_training, until=lambda sample: sample.seconds >= 60 * minutes, every_s=EVERY_S)
    if not (preparing and samples):
        raise TrainingError(f"{directory / 'train.log'}: training ended by itself")
    process.send_signal(signal.SIGTERM)
    status = process.wait()
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    validations = sum("bleu" in event for event in events)
    steps = max(event["step"] for event in events)
    _log("trained", f"{minutes:g} minutes, {steps:,} updates, {validations:,} validations with BLEU, status {status}")
    found = memory_growth(samples)
    _log_growth(found, unit="of the time", at=("first quarter", "last quarter"))
    return _verdict(found.is_constant and status == 128 + signal.SIGTERM)


def _tiny_run(directory: Path) -> Path:
    """Train a tiny model, which is fast and translates badly."""
    run_dir = directory / "tiny"
    command = [str(SCRIPTS / "train.py"), str(directory / "tiny.yaml"), f"run_dir={run_dir}"]
    if start(command, log=directory / "tiny.log").wait():
        raise TrainingError(f"{directory / 'tiny.log'}: the tiny model was not trained")
    return run_dir


def _lines(number: int, middle: str) -> Iterator[str]:
    """Sentences, some of them empty, with `middle` in the middle."""
    pairs = builtin_pairs("train", number)
    for i, (sentence, _) in enumerate(itertools.islice(pairs, number)):
        yield middle if i == number // 2 else "" if i % 97 == 0 else sentence


def _write_lines(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _part(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


def _record(output: Path) -> Path:
    return output.with_name(f"{output.name}.part.json")


def _num_done(output: Path) -> int:
    path = _record(output)
    return int(json.loads(path.read_text())["num_lines"]) if path.is_file() else 0


def _reached(progress: int) -> Callable[[Sample], bool]:
    return lambda sample: sample.progress >= progress


def _at_work(samples: Sequence[Sample]) -> list[Sample]:
    """Without the samples of start-up."""
    return [sample for sample in samples if sample.progress]


def _log(name: str, value: str) -> None:
    print(f"{name:<18} {value}", flush=True)


def _log_growth(found: Growth, *, unit: str, at: tuple[object, object]) -> None:
    _log(unit, " -> ".join(f"{x:,}" if isinstance(x, int) else str(x) for x in at))
    for name, values in vars(found).items():
        _log(name, " -> ".join(f"{value:,.0f}" for value in values))


def _verdict(is_good: bool) -> int:
    _log("verdict", "good" if is_good else "BAD")
    return 0 if is_good else 1


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
