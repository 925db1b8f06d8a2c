"""Which processor and which commit this is, without which no speed means anything."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

from benchmarking.report import Report

# Of the instructions: those that decide how fast matrix products are.
_INSTRUCTIONS = re.compile(r"avx2|avx512f|avx512_bf16|avx512_fp16|avx(?:512)?_vnni|amx_\w+|asimd|sve2?|i8mm|bf16")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Report:
    """Name, family, model and instructions of the first CPU; where Linux does not tell, its name only."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first: dict[str, str] = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", text.partition("\n\n")[0], re.MULTILINE))
    flags = first.get("flags", first.get("Features", "")).split()
    found = {
        "name": first.get("model name") or platform.processor() or platform.machine(),
        "family": first.get("cpu family"),
        "model": first.get("model"),
        "instructions": " ".join(flag for flag in flags if _INSTRUCTIONS.fullmatch(flag)),
    }
    return {name: value for name, value in found.items() if value}


def commit() -> str | None:
    """Of this checkout, short; None outside of one."""
    command = ("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
