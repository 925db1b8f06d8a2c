"""benchmark.py peers: this program beside other toolkits."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from pathlib import Path
from typing import get_args

import torch

from benchmarking.arguments import at_least
from benchmarking.command import Subparsers, add_command, log
from benchmarking.peers.contest import Contest, built
from benchmarking.peers.ctranslate2 import CTranslate2
from benchmarking.peers.data import prepare
from benchmarking.peers.fairseq import Fairseq
from benchmarking.peers.kept import joined
from benchmarking.peers.opennmt import OpenNMT
from benchmarking.peers.ours import Ours, config_of
from benchmarking.peers.peer import Sizes, Task, What
from benchmarking.peers.torch_models import Marian, Plain
from benchmarking.processor import commit, processor
from benchmarking.report import Report
from transformer.config import Config, load_config
from transformer.errors import ConfigError
from transformer.machine import num_cpus

_PEERS = (Plain, Fairseq, OpenNMT, Marian, CTranslate2)
# By size: a measurement of each takes about half a minute on two cores.
_UPDATES, _WARMUP, _SENTENCES = {"small": 20, "base": 6}, {"small": 5, "base": 2}, {"small": 400, "base": 100}
_BEAMS = (1, 4)


def add(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    help = "training and translation beside other toolkits, which are installed into a cache directory"
    command = add_command(commands, "peers", peers, help, on_this_machine=False)
    command.add_argument("overrides", metavar="data.key=value", nargs="*", help="the text, as of a configuration")
    names = [peer.name for peer in _PEERS]
    command.add_argument("--peer", action="append", choices=names, help="by default all; may be repeated")
    command.add_argument("--size", action="append", choices=tuple(_UPDATES), help="of the model; by default both")
    command.add_argument("--what", action="append", choices=get_args(What), help="by default both")
    command.add_argument("--rounds", type=at_least(1), default=3, metavar="N", help="runs of each (default: 3)")
    command.add_argument(
        "--threads", type=at_least(1), metavar="N", help="by default all CPUs to train and one to translate"
    )
    for name, defaults, what in (
        ("updates", _UPDATES, "updates to time"),
        ("sentences", _SENTENCES, "sentences to translate"),
    ):
        help = f"{what} (default: {defaults['small']} for small, {defaults['base']} for base)"
        command.add_argument(f"--{name}", type=at_least(1), metavar="N", help=help)
    help = "sentences to translate at a time (default: what each toolkit is used with)"
    command.add_argument("--batch", type=at_least(1), metavar="N", help=help)
    command.add_argument(
        "--keep", type=Path, metavar="FILE", help="the JSON of an earlier run, whose other rows are printed too"
    )
    command.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/.peers"),
        metavar="DIR",
        help="for environments and files of the peers, 6 GB (default: runs/.peers)",
    )


def peers(arguments: argparse.Namespace) -> Report:
    """Measure all peers at all sizes.

    ConfigError for overrides that other toolkits cannot follow, and for a file to keep that does not fit.
    """
    if wrong := [word for word in arguments.overrides if not word.startswith("data.")]:
        raise ConfigError(f"{wrong[0]}: the sizes are fixed for all toolkits; only keys of data can be given")
    cache = arguments.cache.absolute()
    sizes = arguments.size or list(_UPDATES)
    configs = {size: load_config(config_of(size), arguments.overrides) for size in sizes}
    setting = _setting(configs[sizes[0]], arguments)
    if arguments.keep is not None:
        joined({**setting, "rows": [], "left_out": []}, arguments.keep)  # an error comes now, not after an hour
    chosen = [peer() for peer in _PEERS if arguments.peer is None or peer.name in arguments.peer]
    ready, failed = built([Ours(arguments.overrides), *chosen], Path(sys.executable), cache, log)
    contest = Contest(ready, log)
    for what in arguments.what or get_args(What):
        for size in sizes:
            contest.enter(_task(what, size, configs[size], cache, arguments), _BEAMS)
    rows = contest.run(arguments.rounds)
    report = {
        **setting,
        "rows": rows,
        "left_out": [dataclasses.asdict(each) for each in (*failed, *contest.left_out)],
    }
    return report if arguments.keep is None else joined(report, arguments.keep)


def _setting(config: Config, arguments: argparse.Namespace) -> Report:
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "torch": torch.__version__,
        "processor": processor(),
        "cpus": num_cpus(),
        "rounds": arguments.rounds,
        "corpus": config.data.corpus,
        "batch": arguments.batch,
    }


def _task(what: What, size: str, config: Config, cache: Path, arguments: argparse.Namespace) -> Task:
    sentences = arguments.sentences or _SENTENCES[size]
    data = prepare(config, cache, sentences=sentences)
    model = config.model
    return Task(
        what=what,
        size=size,
        sizes=Sizes(
            vocab_size=config.data.vocab_size,
            d_model=model.d_model,
            num_heads=model.num_heads,
            d_ff=model.d_ff,
            num_layers=model.num_layers,
            dropout=model.dropout,
            label_smoothing=config.train.label_smoothing,
        ),
        data=data,
        work=cache / "work" / data.name,
        precision="",  # each peer's
        threads=arguments.threads or (num_cpus() if what == "train" else 1),
        max_tokens=config.train.padded_tokens,
        updates=arguments.updates or _UPDATES[size],
        warmup=_WARMUP[size],
        sentences=sentences,
        batch=arguments.batch,
        seed=config.seed,
    )
