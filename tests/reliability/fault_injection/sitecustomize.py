"""Fault injection: kills its own process at a chosen event. Python imports this file if its directory is on PYTHONPATH.

Events are changes of the file system below a directory (just before they happen), imports, writes of tensor files, and
a model put into `eval` mode, which starts validation and translation. Events are counted separately by kill point.
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

# Kill points by path of the event, relative to the watched directory; the first match counts.
KILL_POINTS = (
    ("claiming the run", r"run/(\.config.*|config\.yaml|\.lock)?$|run$"),
    ("initialising", r"run/\.?initialization\.json.*"),
    ("training the tokenizer", r"(run|cache)/[^/]*\.model[^/]*$"),
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


class FaultInjector:
    """Counts events and sends signals.

    Options, from the environment as JSON:
        root: the watched directory.
        last: the last step.
        report: a file that gets a line with each kill.
        point, number, delay_s, signals: which signals to send, a tenth of a second apart, `delay_s` after which event
            of which kill point.
        limit: instead of sending signals, limit the size of files from that event on; the system kills the writer.
        counts: a file for the number of events by kill point, written at exit.
        slow_s: additional time to flush a file.
        in_background: write checkpoints while training goes on, whatever the device.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.counts: dict[str, int] = {}
        self._root = options["root"] + os.sep
        self._points = [
            (name, re.compile(pattern.replace("{last}", str(options["last"])))) for name, pattern in KILL_POINTS
        ]
        self._fsync = os.fsync
        os.fsync = self._counted_fsync
        self._wrapped: set[str] = set()
        self._report = os.open(options["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        # A background harness ignores SIGINT, and its children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if options.get("limit"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        sys.addaudithook(self._on_audit_event)

    def write_counts(self) -> None:
        """Write the numbers of events, if requested."""
        if counts := self.options.get("counts"):
            Path(counts).write_text(json.dumps(self.counts))

    def _on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            self._wrap_calls()
            self._count("importing", str(arguments[0]))
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._on_file_event("open", os.fsdecode(path), -1)
            elif isinstance(path, str) and "/corpus/train" in path and mode:
                self._count("training the tokenizer", f"read {path}")
        elif event in _AUDITED:
            # shutil.rmtree names files relative to the descriptor of their directory.
            is_relative = event not in ("os.rename", "os.truncate") and isinstance(arguments[-1], int)
            self._on_file_event(event, os.fsdecode(arguments[0]), arguments[-1] if is_relative else -1)

    def _counted_fsync(self, descriptor: int) -> None:
        self._on_file_event("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()), -1)
        time.sleep(self.options.get("slow_s", 0.0))
        self._fsync(descriptor)

    def _on_file_event(self, event: str, path: str, directory: int) -> None:
        if directory >= 0:
            path = str(Path(f"/proc/self/fd/{directory}").readlink() / path)
        path = os.path.abspath(path)  # noqa: PTH100 (absolute() would keep "..", resolve() would ask the disk)
        if not path.startswith(self._root):
            return
        name = path.removeprefix(self._root)
        for point, pattern in self._points:
            if pattern.match(name):
                self._count(point, f"{event} {name}")
                return

    def _wrap_calls(self) -> None:
        """Count calls without an audit event; they are wrapped once their module is imported."""
        for module_name, owner_name, name, point in (
            ("torch.nn", "Module", "eval", "inference"),
            ("safetensors.torch", None, "serialize_file", "mid-write"),
        ):
            module = sys.modules.get(module_name)
            owner = getattr(module, owner_name, None) if owner_name else module
            if point not in self._wrapped and hasattr(owner, name):
                self._wrapped.add(point)
                setattr(owner, name, self._counted(getattr(owner, name), point))

        saving = sys.modules.get("transformer.training.saving")
        if self.options.get("in_background") and hasattr(saving, "writes_in_background"):
            setattr(saving, "writes_in_background", lambda _: True)  # noqa: B010

    def _counted(self, function: Callable[..., Any], point: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._count(point, function.__name__)
            return function(*arguments, **named)

        return counted

    def _count(self, point: str, what: str) -> None:
        number = self.counts[point] = self.counts.get(point, 0) + 1
        if point != self.options.get("point") or number != self.options["number"]:
            return
        if limit := self.options.get("limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        elif self.options["delay_s"] or len(self.options["signals"]) > 1:
            threading.Thread(target=self._send_signals, args=(what,), daemon=True).start()
        else:
            self._send_signals(what)

    def _send_signals(self, what: str) -> None:
        time.sleep(self.options["delay_s"])
        for place, number in enumerate(self.options["signals"]):
            time.sleep(0.1 * bool(place))
            os.write(self._report, (json.dumps({"at": time.time(), "what": what}) + "\n").encode())
            os.kill(os.getpid(), number)


if "FAULT_INJECTION" in os.environ:
    # Removed, so that child processes do not inherit it.
    atexit.register(FaultInjector(json.loads(os.environ.pop("FAULT_INJECTION"))).write_counts)
