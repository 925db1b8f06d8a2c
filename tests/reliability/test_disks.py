"""What is on a disk that is full, read-only, gone or slow is gone on with when it is well."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disks import UNSHARE, complaints
from run_lifecycle import Ending

MOUNT = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
CAN_MOUNT = shutil.which("unshare") is not None and subprocess.run(MOUNT, capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="users may not mount file systems of their own here")
def test_nothing_is_lost_on_a_bad_disk() -> None:
    program = Path(__file__).with_name("disks.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    *tried, summary = done.stdout.splitlines()
    assert summary.endswith(", 0 lost something"), done.stdout + done.stderr
    assert sum("went on as undisturbed" in line for line in tried) == int(summary.split()[0]) >= 13
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
def test_one_line_says_why(status: int, printed: str, is_right: bool) -> None:
    assert (complaints(Ending(status, None, "", printed), "No space left") == []) is is_right
