"""Runs on disks that are full, read-only, gone or slow resume without loss once the disk is available again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disks import UNSHARE, error_faults
from run_lifecycle import Ending

MOUNT = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
CAN_MOUNT = shutil.which("unshare") is not None and subprocess.run(MOUNT, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.skipif(not CAN_MOUNT, reason="user namespaces are not enabled")
def test_nothing_is_lost_on_a_failing_disk() -> None:
    program = Path(__file__).with_name("disks.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    *tried, summary = done.stdout.splitlines()
    assert summary.endswith(", 0 lost something"), done.stdout + done.stderr
    assert sum("resumed without loss" in line for line in tried) == int(summary.split()[0]) >= 13
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("status", "printed", "is_right"),
    [
        (2, "step 3\nerror: run: No space left on device\n", True),
        (1, "step 3\nerror: run: No space left on device\n", False),
        (2, "Traceback (most recent call last):\nerror: run: No space left on device\n", False),
        (2, "error: run: Input/output error\n", False),
        (2, "No space left on device\n", False),
        (2, "", False),
    ],
)
def test_an_error_is_one_line_with_the_reason(status: int, printed: str, is_right: bool) -> None:
    assert (error_faults(Ending(status, None, "", printed), "No space left") == []) is is_right
