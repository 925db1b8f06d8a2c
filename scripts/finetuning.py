"""Measure what fine-tuning saves, and what it forgets: python scripts/finetuning.py [section.key=value ...] --out DIR

Trains three runs: `general`, the quickstart; `scratch`, the same from random weights on the built-in corpus with other
words; `tuned`, quickstart_finetune, which begins with the weights of `general`. Prints the updates after which each of
the last two first reached the same validation BLEU, and the test BLEU of all three with either words. The same command
again resumes where it was stopped; overrides hold for all three.
"""

from __future__ import annotations

import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import contextlib
import io
import json
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformer.cli import run
from transformer.commands import evaluate
from transformer.config import Config, load_config
from transformer.errors import CheckpointError, warn
from transformer.inference.validation_bleu import ValidationBleu
from transformer.progress import stage
from transformer.training.device import tune_process
from transformer.training.initialization import inherit
from transformer.training.metrics import read_metrics
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer

_LINES = {
    "general": "`general`, not tuned",
    "scratch": "random weights",
    "tuned": "the weights of `general`",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    tune_process()
    with StopRequest() as stop:
        for config in configurations(arguments.out, arguments.overrides):
            # Each is made after the one before has been trained, with whose weights it may begin.
            reason = Trainer.from_config(config, scorer=ValidationBleu.from_config(config, warn), stage=stage).fit(stop)
            if reason in signal.Signals.__members__:
                return 128 + int(signal.Signals[reason])
    report = measure(arguments.out, arguments.device)
    print(json.dumps(report, indent=1) if arguments.json else markdown(report))
    return 0


def configurations(out: Path, overrides: Sequence[str]) -> Iterable[Config]:
    """The configurations of the three runs, in the order in which they are trained."""
    tuned = load_config("quickstart_finetune")
    # As often as the tuned one: the steps are compared.
    for name, base, chosen in (
        ("general", "quickstart", []),
        (
            "scratch",
            "quickstart",
            [f"data.subset={tuned.data.subset}", f"train.validate_steps={tuned.train.validate_steps}"],
        ),
        ("tuned", "quickstart_finetune", [f"train.init_from={out / 'general'}"]),
    ):
        yield load_config(base, [*chosen, *overrides, f"run_dir={out / name}"], complete=inherit)


def measure(out: Path, device: str = "auto") -> dict[str, Any]:
    """Updates to the same validation BLEU, and test scores, of three finished runs. CheckpointError if one is not."""
    validations = {name: _validations(out / name) for name in ("scratch", "tuned")}
    # The highest that both have reached.
    target = min(max(bleu for _, bleu in found) for found in validations.values())
    updates = {name: next(step for step, bleu in found if bleu >= target) for name, found in validations.items()}
    rows = []
    for name in _LINES:
        new, old = _test_scores(out / name, out, device)
        rows.append({"run": name, "updates": updates.get(name), "bleu_new_words": new, "bleu_general": old})
    return {
        "validation_bleu": round(target, 2),
        "ratio": round(updates["scratch"] / updates["tuned"], 2),
        "runs": rows,
    }


def _validations(path: Path) -> list[tuple[int, float]]:
    """Step and BLEU of each validation."""
    found = [(record["step"], record["bleu"]) for record in read_metrics(path) if record["kind"] == "validation"]
    if not found:
        raise CheckpointError(f"{path}: has no validation yet; set train.max_steps and train.validate_steps for one")
    return found


def _test_scores(path: Path, out: Path, device: str) -> tuple[float, float]:
    """Test BLEU of a run with the new words, and with those of the general corpus."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        sets = ["--also", str(out / "tuned"), str(out / "general")]
        evaluate.main([str(path), *sets, "--metrics", "bleu", "--device", device, "--json"])
    new, old = json.loads(printed.getvalue())["also"]
    return new["bleu"], old["bleu"]


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"| begins with | updates to a validation BLEU of {report['validation_bleu']:.1f} "
        "| test BLEU, new words | test BLEU, general |",
        "|---|---|---|---|",
    ]
    for row in report["runs"]:
        updates = "–" if row["updates"] is None else f"{row['updates']:,}"
        lines.append(f"| {_LINES[row['run']]} | {updates} | {row['bleu_new_words']:.1f} | {row['bleu_general']:.1f} |")
    return "\n".join([*lines, "", f"{report['ratio']:.1f} times fewer updates"])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="of all three runs")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"), help="directory of the runs")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="of the test scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run(main)
