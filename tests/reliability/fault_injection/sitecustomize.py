"""Kills its own process at a chosen event. Python imports this file first in processes that have it on PYTHONPATH.

An event is a change of the file system below a directory (before it happens), an import, a file of tensors that is
written, or a model put into `eval` mode, which begins validation and translation. Each moment, which is what the
process is about, has its own count of events.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a process is about, by the path below the watched directory that an event names; the first that matches.
MOMENTS = (
    ("claiming the run", r"run/(\.config.*|config\.yaml|\.lock)?$|run$"),
    ("learning the tokenizer", r"(run|cache)/[^/]*\.model[^/]*$"),
    ("building the cache", r"cache(/.*)?$"),
    ("writing metrics", r"run/(\.?metrics\.jsonl.*|tensorboard(/.*)?)$"),
    ("pruning", r"run/(checkpoints|best)/(step-.*|\.step-\d+\.removed.*)"),
    ("saving the best", r"run/best(/\..*)?$"),
    ("final save", r"run/checkpoints/\.step-0*{last}\..*"),
    ("saving a checkpoint", r"run/checkpoints(/\..*)?$"),
    ("averaging", r"run/\.?averaged.*"),
    ("writing the output", r"\.?output.*"),
)
_AUDITED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


class Saboteur:
    """Counts events and sends signals.

    Orders, from the environment as JSON: `root`, the directory; `last`, the last step; `report`, the file that gets a
    line with each kill; and `moment`, `number`, `delay_s` and `signals`: which signals at which event of that moment,
    how long after, a tenth of a second apart; or instead of these `limit`: from that event on no file may grow beyond
    this size, the system kills who tries. `counts`: write down, at exit, the number of events of each moment.
    `slow_s`: how long the disk takes, on top of its own time, to flush a file.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.counts: dict[str, int] = {}
        self._root = orders["root"] + os.sep
        self._moments = [
            (name, re.compile(pattern.replace("{last}", str(orders["last"])))) for name, pattern in MOMENTS
        ]
        self._fsync = os.fsync
        os.fsync = self._watched_fsync
        self._watched: set[str] = set()
        self._report = os.open(orders["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        # A harness in the background has it ignored, and what it starts inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.addaudithook(self._hear)

    def write_counts(self) -> None:
        """At the end, if that was ordered."""
        if counts := self.orders.get("counts"):
            Path(counts).write_text(json.dumps(self.counts))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            self._watch_calls()
            self._count("importing", str(arguments[0]))
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._touch("open", os.fsdecode(path), -1)
            elif isinstance(path, str) and "/corpus/train" in path and mode:
                self._count("learning the tokenizer", f"read {path}")
        elif event in _AUDITED:
            # What shutil.rmtree removes is named beside the descriptor of its directory, if need be.
            is_beside = event not in ("os.rename", "os.truncate") and isinstance(arguments[-1], int)
            self._touch(event, os.fsdecode(arguments[0]), arguments[-1] if is_beside else -1)

    def _watched_fsync(self, descriptor: int) -> None:
        self._touch("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()), -1)
        time.sleep(self.orders.get("slow_s", 0.0))
        self._fsync(descriptor)

    def _touch(self, event: str, path: str, directory: int) -> None:
        if directory >= 0:
            path = str(Path(f"/proc/self/fd/{directory}").readlink() / path)
        path = os.path.abspath(path)  # noqa: PTH100 (absolute() would keep "..", resolve() would ask the disk)
        if not path.startswith(self._root):
            return
        name = path.removeprefix(self._root)
        for moment, pattern in self._moments:
            if pattern.match(name):
                self._count(moment, f"{event} {name}")
                return

    def _watch_calls(self) -> None:
        """Count, once they are there, calls that no audit event tells of."""
        for module_name, owner_name, name, moment in (
            ("torch.nn", "Module", "eval", "inference"),
            ("safetensors.torch", None, "serialize_file", "in the middle of a write"),
        ):
            module = sys.modules.get(module_name)
            owner = getattr(module, owner_name, None) if owner_name else module
            if moment not in self._watched and hasattr(owner, name):
                self._watched.add(moment)
                setattr(owner, name, self._counted(getattr(owner, name), moment))

    def _counted(self, function: Callable[..., Any], moment: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._count(moment, function.__name__)
            return function(*arguments, **named)

        return counted

    def _count(self, moment: str, what: str) -> None:
        number = self.counts[moment] = self.counts.get(moment, 0) + 1
        if moment != self.orders.get("moment") or number != self.orders["number"]:
            return
        if limit := self.orders.get("limit"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        elif self.orders["delay_s"] or len(self.orders["signals"]) > 1:
            threading.Thread(target=self._strike, args=(what,), daemon=True).start()
        else:
            self._strike(what)

    def _strike(self, what: str) -> None:
        time.sleep(self.orders["delay_s"])
        for place, number in enumerate(self.orders["signals"]):
            time.sleep(0.1 * bool(place))
            os.write(self._report, (json.dumps({"at": time.time(), "what": what}) + "\n").encode())
            os.kill(os.getpid(), number)


if "SABOTEUR" in os.environ:
    # Not for the processes that this one starts.
    atexit.register(Saboteur(json.loads(os.environ.pop("SABOTEUR"))).write_counts)
