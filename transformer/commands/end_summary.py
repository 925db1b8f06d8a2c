"""What `transformer train` prints at the end: scores, time, speed, and the commands to go on with."""

import shlex
import shutil
import sys
from pathlib import Path

from transformer.config import DataConfig
from transformer.data.corpus import find_files
from transformer.errors import DataError
from transformer.progress import duration, rate, short
from transformer.training.overview import Overview, overview
from transformer.training.run_directory import checkpoints, find_checkpoint
from transformer.training.trainer import Trainer

_MAX_AVERAGED = 5  # as in section 6.1


def results(trainer: Trainer) -> str:
    """The best checkpoint, time and speed of a run, over all its starts."""
    found, progress = overview(trainer.run), trainer.progress
    lines = []
    if found.best_step is not None:
        lines.append(f"best checkpoint: step {found.best_step}{_scores(found)}")
    if found.highest_bleu is not None and found.highest_bleu > (found.best_bleu or 0.0):
        lines.append(f"highest BLEU: {found.highest_bleu:.2f} at step {found.highest_bleu_step}")
    if found.highest_chrf is not None and found.highest_chrf > (found.best_chrf or 0.0):
        lines.append(f"highest chrF: {found.highest_chrf:.2f} at step {found.highest_chrf_step}")
    if progress.step:
        src, tgt = (rate(number / max(progress.elapsed_s, 1e-9)) for number in trainer.num_tokens())
        lines.append(f"time: {duration(progress.elapsed_s)} with validations, {src} source and {tgt} target tokens/s")
    return "\n".join(lines)


def _scores(found: Overview) -> str:
    scores = (("BLEU", found.best_bleu), ("chrF", found.best_chrf))
    shown = "".join(f", {name} {score:.2f}" for name, score in scores if score is not None)
    if found.best_nll is None or found.best_ppl is None:
        return shown
    return f", nll {found.best_nll:.3f}, ppl {short(found.best_ppl)}{shown}"


def next_commands(trainer: Trainer) -> str:
    """The commands that use a finished run, and the checkpoint that they take."""
    run, data = str(trainer.run), trainer.config.data
    num_averaged = min(_MAX_AVERAGED, len(checkpoints(trainer.run / "checkpoints")))
    if data.corpus == "treebank" or ".trees" in Path(data.corpus).suffixes:
        lines = [command("parse", run), command("parse", run, "--evaluate", *_split(data))]
    else:
        lines = [command("translate", run), command("evaluate", run, *_split(data))]
    checkpoint = find_checkpoint(run)
    if num_averaged > 1 and checkpoint.name != "averaged":
        lines.append(command("average", run, "--last", str(num_averaged)))
    return "\n".join(
        [f"checkpoint to translate and score with: {checkpoint}", "next:", *(f"  {line}" for line in lines)]
    )


def _split(data: DataConfig) -> list[str]:
    """The option to score the validation data, if they are files and there is none for the test split."""
    if "test" in data.hold_out:
        return []
    if data.corpus == "none":
        return ["--split", data.validation_split]
    try:
        if "{" in data.corpus:
            langs = (data.src_lang, data.tgt_lang) if "{lang}" in data.corpus else ("",)
            find_files(data.corpus, data.test_split, langs)
    except DataError:
        return ["--split", data.validation_split]
    return []


def command(name: str, *arguments: str) -> str:
    """The shell command for a program, in the form in which this one was started."""
    started = Path(sys.orig_argv[1] if len(sys.orig_argv) > 1 else sys.executable)
    if started.stem == "transformer":  # the console script
        on_path = shutil.which("transformer")
        is_on_path = on_path is not None and Path(on_path).resolve() == started.resolve()
        return shlex.join(["transformer" if is_on_path else str(started), name, *arguments])
    script = started.with_name(f"{name}.py")
    program = [str(script)] if started.name == "train.py" and script.is_file() else ["-m", "transformer.commands", name]
    return shlex.join([sys.executable, *program, *arguments])
