"""Command lines for fuzzing the scripts: options and files, mostly invalid ones."""

from __future__ import annotations

import io
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mutators
import value_mutators
from harness import InvariantError

from transformer import cli
from transformer.data.builtin import builtin_trees

# The last values on a command line win: whatever else was drawn, the run stays small.
_SMALL = (
    "train.max_steps=1",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.d_ff=8",
    "model.d_k=4",
    "model.d_v=4",
    "model.max_positions=512",
    "model.max_relative_position=7",
    "data.corpus=builtin",
    "data.corpora=[]",
    "data.hold_out=[]",
    "data.validation_size=null",
    "data.max_length=99",
    "data.builtin_size=99",
    "data.vocab_size=300",
    "data.train_split=train",
    "data.validation_split=test",
    "train.validation_bleu=false",
    "train.device=cpu",
    "train.max_tokens=500",
    "train.tokens_per_update=500",
    "train.num_threads=1",
)


_SEARCH = (
    "--beam",
    "--alpha",
    "--length-penalty",
    "--max-length",
    "--min-length",
    "--no-repeat-ngram",
    "--allow-unknown",
)
# Options that do not take exactly one value.
_NUM_VALUES = {"--positions": 2, "--schedule": 2, "--allow-unknown": 0}


def _options(rng: random.Random, *names: str) -> list[str]:
    """Some of these options with mostly invalid values."""
    words = []
    for name in rng.sample(names, min(len(names), rng.choice((0, 0, 1, 2)))):
        num_values = _NUM_VALUES.get(name, 1) if rng.random() < 0.9 else 0
        draw = rng.choice((value_mutators.word, value_mutators.whole_number))
        words += [name, *(draw(rng) for _ in range(num_values))]
    return words


def _some_run(run: Path, rng: random.Random, directory: Path) -> str:
    """The run, a copy with a mutated file, or a random word."""
    if rng.random() < 0.5:
        return str(run)
    if rng.random() < 0.3:
        return value_mutators.word(rng)
    # With checksums, the mutation is noticed before anything is parsed.
    ignored = shutil.ignore_patterns("SHA256SUMS") if rng.random() < 0.8 else None
    shutil.copytree(run, directory / "run", ignore=ignored)
    path = rng.choice(sorted(path for path in (directory / "run").rglob("*") if path.is_file()))
    path.write_bytes(mutators.mutate(rng, path.read_bytes()))
    return str(directory / "run")


def _some_file(rng: random.Random, directory: Path) -> str:
    path = directory / rng.choice(("text", "text.gz", "text.xz", "text.zst", "wörter\n.txt"))
    is_packed = path.suffix in mutators.PACK
    path.write_bytes(mutators.packed_file(rng, path.suffix) if is_packed else mutators.text_file(rng))
    return str(path)


def _some_ensemble(run: Path, rng: random.Random) -> list[str]:
    others = [str(run) if rng.random() < 0.7 else value_mutators.word(rng) for _ in range(rng.choice((1, 1, 2)))]
    return ["--ensemble", *others] if rng.random() < 0.2 else []


def _translate(run: Path, rng: random.Random, directory: Path) -> list[str]:
    source = rng.choice(([], ["-"], [_some_file(rng, directory)], ["--text", value_mutators.word(rng)]))
    options = _options(rng, "--nbest", "--precision", "--device", "--max-source-length", "--too-long", *_SEARCH)
    options += _options(rng, "--tag", "--temperature", "--top-k", "--top-p", "--seed", "--prefix", "--alignment-layer")
    flags = ("--sample", "--json", "--token-scores", "--alignment", "--scores")
    options += [flag for flag in flags if rng.random() < 0.2]
    options += ["--prefix-file", _some_file(rng, directory)] if rng.random() < 0.2 else []
    options += ["--constraints", _some_file(rng, directory)] if rng.random() < 0.2 else []
    options += _some_ensemble(run, rng)
    output = ["--output", str(directory / "out")] if rng.random() < 0.3 else []
    return [_some_run(run, rng, directory), *source, *options, *output]


def _score(run: Path, rng: random.Random, directory: Path) -> list[str]:
    source = _some_file(rng, directory)
    other = source if rng.random() < 0.5 else _some_file(rng, directory)
    if rng.random() < 0.4:
        (directory / "nbest").write_bytes(mutators.nbest_list(rng))
        other = rng.choice((other, str(directory / "nbest")))
        kind = ["--nbest", other, *rng.choice(([], ["--rerank"], ["--json"]))]
        options = _options(rng, "--nbest-size", "--weight", "--alpha")
    else:
        kind = ["--tgt", other, *rng.choice(([], ["--tokens"], ["--summary"], ["--json"], ["--align"]))]
        options = _options(rng, "--layer", "--step", "--alpha", "--max-source-length", "--too-long", "--precision")
    options += _options(rng, "--tag")
    kind += ["--reverse"] * (rng.random() < 0.2) + ["--too-long", "skip"] * (rng.random() < 0.5)
    output = ["--output", str(directory / rng.choice(("out", "text")))] if rng.random() < 0.3 else []
    return [_some_run(run, rng, directory), "--src", rng.choice((source, source, "-")), *kind, *options, *output]


def _evaluate(run: Path, rng: random.Random, directory: Path) -> list[str]:
    source = _some_file(rng, directory)
    references = [source if rng.random() < 0.5 else _some_file(rng, directory) for _ in range(rng.choice((1, 1, 2)))]
    files = ["--src", source, "--ref", *references]
    options = _options(rng, *_SEARCH, "--tokenize", "--split", "--metrics", "--lang", "--also")
    options += _some_ensemble(run, rng)
    options += ["--output", str(directory / rng.choice(("out", "text")))] if rng.random() < 0.3 else []
    options += _analysis(rng, directory)
    if rng.random() < 0.3:
        hypotheses = source if rng.random() < 0.5 else _some_file(rng, directory)
        named = [] if rng.random() < 0.5 else [_some_run(run, rng, directory)]
        return [*named, "--hyp", hypotheses, *files[rng.choice((0, 2)) :], *options]
    return [_some_run(run, rng, directory), *files, *options]


def _analysis(rng: random.Random, directory: Path) -> list[str]:
    """Options of scores by length, the worst sentences and the page, mostly valid ones."""
    options = ["--by-length"] if rng.random() < 0.3 else []
    options += ["--worst", str(rng.choice((1, 3, 1000)))] if rng.random() < 0.3 else []
    options += ["--html", str(directory / rng.choice(("page.html", "text")))] if rng.random() < 0.2 else []
    options += ["--plot", f"{directory}/x.svg"] if rng.random() < 0.05 else []  # which takes half a second
    return [*options, *(_options(rng, "--length-step", "--worst", "--worst-by") if rng.random() < 0.3 else [])]


def _line(rng: random.Random) -> str:
    """Text for one line of a file in UTF-8."""
    return " ".join(mutators.text(rng).split())[:300].encode(errors="replace").decode()


def _compare(run: Path, rng: random.Random, directory: Path) -> list[str]:
    """Translations of the same number of lines, or any files and runs."""
    systems, reference = [], _some_file(rng, directory)
    lines = rng.randrange(1, 9)
    is_aligned = rng.random() < 0.7
    for name in ("a", "b", "c")[: rng.choice((1, 2, 2, 2, 3))]:
        if rng.random() < 0.1:
            systems.append(_some_run(run, rng, directory) if not (directory / "run").exists() else str(run))
        elif is_aligned:
            (directory / name).write_text("".join(f"{_line(rng)}\n" for _ in range(lines)), encoding="utf-8")
            systems.append(str(directory / name))
        else:
            systems.append(rng.choice((reference, value_mutators.word(rng))))
    if is_aligned:
        (directory / "ref").write_text("".join(f"{_line(rng)}\n" for _ in range(lines)), encoding="utf-8")
        reference = str(directory / "ref")
    texts = ["--ref", reference, *(["--src", reference] if rng.random() < 0.5 else [])]
    options = ["--json"] if rng.random() < 0.3 else []
    options += ["--test", "randomization"] if rng.random() < 0.3 else []
    options += ["--html", str(directory / rng.choice(("page.html", "a")))] if rng.random() < 0.5 else []
    options += _options(rng, "--metrics", "--tokenize", "--lang", "--name", "--examples", "--length-step")
    return [*systems, *texts, *options, *(["--samples", "7"] if rng.random() < 0.9 else [])]


def _train(run: Path, rng: random.Random, directory: Path) -> list[str]:
    path = directory / "mine.yaml"
    path.write_bytes(value_mutators.config_file(rng))
    words = [value_mutators.override(rng) for _ in range(rng.randrange(3))]
    small = list(_SMALL)
    if rng.random() < 0.2:  # the model is that of the source
        words.append(f"train.init_from={_some_run(run, rng, directory)}")
        small = [word for word in _SMALL if not word.startswith(("model.", "data.vocab_size"))]
    return [
        str(path),
        *(word.replace("\0", "") for word in words),
        *small,
        *(["--change"] if rng.random() < 0.1 else []),
        f"run_dir={directory}/mine",
        f"data.cache_dir={directory}/cache",
    ]


def _data(run: Path, rng: random.Random, directory: Path) -> list[str]:
    if rng.random() < 0.4:
        return [*_train(run, rng, directory), *_options(rng, "--examples", "--src", "--validation-size"), "--json"]
    pairs = _some_file(rng, directory)
    words = [value_mutators.override(rng).replace("\0", "") for _ in range(rng.randrange(2))]
    languages = ["data.src_lang=en", "data.tgt_lang=de"] if rng.random() < 0.7 else []
    fixed = (f"data.cache_dir={directory}/cache", f"run_dir={directory}/mine", "data.vocab_size=60")
    return ["--src", pairs, "--tgt", pairs, *languages, *_options(rng, "--validation-size"), *words, *fixed]


def _average(run: Path, rng: random.Random, directory: Path) -> list[str]:
    chosen = _some_run(run, rng, directory)
    if chosen == str(run):
        shutil.copytree(run, directory / "run")
        chosen = str(directory / "run")
    return [chosen, *_options(rng, "--last", "--last")]


def _plot(run: Path, rng: random.Random, directory: Path) -> list[str]:  # noqa: ARG001
    runs = directory / "run"
    runs.mkdir()
    records: list[dict[str, object]] = [
        {"kind": "validation", "step": 1, "nll": 1.5, "ppl": 4.5, "bleu": 9.5, "elapsed_s": 3.5}
    ]
    (runs / "metrics.jsonl").write_bytes(mutators.json_lines(rng, records))
    kind = rng.random()
    if kind < 0.5:
        return [str(runs), *_options(rng, "--every", "--positions", "--schedule")]
    if kind < 0.8:
        return [*_options(rng, "--positions", "--schedule", "--schedule-of"), "--out", f"{directory}/x.png"]
    return [value_mutators.word(rng), *_options(rng, "--every"), "--out", f"{directory}/x.png"]


def _table3(run: Path, rng: random.Random, directory: Path) -> list[str]:  # noqa: ARG001
    named = [] if rng.random() < 0.5 else [value_mutators.word(rng)]
    return [*named, "--report", "--out", str(directory), *_options(rng, "--steps", "--divide-sizes", "--tokenize")]


def _attend(run: Path, rng: random.Random, directory: Path) -> list[str]:
    return [
        _some_run(run, rng, directory),
        value_mutators.word(rng),
        *_options(rng, "--translation"),
        "--out",
        f"{directory}/x.html",
    ]


def _inspect(run: Path, rng: random.Random, directory: Path) -> list[str]:
    file = _some_file(rng, directory)
    names = ("lens", "stream", "gradients", "heads", "spectra", "components", "probe", value_mutators.word(rng))
    texts = rng.choice((["--src", file, "--ref", file], ["--split", "test"], _options(rng, "--split", "--test-set")))
    senses = rng.choice(([], ["--probe", value_mutators.word(rng), "--senses", file, *([file] * rng.randrange(2))]))
    options = [*_options(rng, "--sentences", "--beam"), *rng.choice(([], ["--json"]))]
    return [_some_run(run, rng, directory), *rng.sample(names, rng.randrange(1, 3)), *options, *texts, *senses]


def _parse(run: Path, rng: random.Random, directory: Path) -> list[str]:
    (directory / "x.trees").write_text("\n".join([*builtin_trees("test", 2), mutators.tree(rng)]), encoding="utf-8")
    file = rng.choice((_some_file(rng, directory), f"{directory}/x.trees"))
    return [
        _some_run(run, rng, directory),
        file,
        *rng.choice(([], ["--evaluate"])),
        *_options(rng, "--beam", "--alpha"),
    ]


def _tokenizer(run: Path, rng: random.Random, directory: Path) -> list[str]:
    action = rng.choice(("train", "encode", "decode", "stats", value_mutators.word(rng)))
    file = _some_file(rng, directory)
    if action == "train":
        options = _options(
            rng, "--vocab-size", "--tokenizer-type", "--normalization", "--character-coverage", "--user-symbol"
        )
        return [action, file, "--output", rng.choice((f"{directory}/x.model", file)), *options, "--vocab-size", "99"]
    names = {"encode": ("--sample", "--seed", "--side"), "decode": ("--side",), "stats": ("--longest", "--side")}
    options = [*_options(rng, *names.get(action, ())), *(["--ids"] if rng.random() < 0.3 else [])]
    return [action, _some_run(run, rng, directory), file, *options]


def _benchmark(run: Path, rng: random.Random, directory: Path) -> list[str]:  # noqa: ARG001
    (directory / "mine.yaml").write_bytes(value_mutators.config_file(rng))
    options = _options(rng, "--gpus", "--sentence-length", "--tflops", "--gb-per-s", "--efficiency")
    return ["estimate", f"{directory}/mine.yaml", *options, *(["model.num_layers=2"] if rng.random() < 0.5 else [])]


# Draws the arguments of a script, given an existing run and a directory for other files.
COMMANDS: dict[str, Callable[[Path, random.Random, Path], list[str]]] = {
    "translate": _translate,
    "score": _score,
    "evaluate": _evaluate,
    "compare": _compare,
    "train": _train,
    "data": _data,
    "average": _average,
    "plot": _plot,
    "table3": _table3,
    "attend": _attend,
    "inspect": _inspect,
    "parse": _parse,
    "tokenizer": _tokenizer,
    "benchmark": _benchmark,
}


def end_of(main: Callable[[Sequence[str]], int], argv: Sequence[str], stdin: bytes) -> tuple[object, str, str]:
    """Run a script in this process; returns its exit status, stdout and stderr."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for name in ("stdout", "stderr")}
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    sys.stdout, sys.stderr = streams["stdout"], streams["stderr"]
    try:
        cli.run(lambda: main(argv))
    except SystemExit as end:
        for stream in streams.values():
            stream.flush()
        out, err = (stream.buffer.getvalue().decode(errors="replace") for stream in streams.values())
        return end.code, out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    raise InvariantError("did not exit")
