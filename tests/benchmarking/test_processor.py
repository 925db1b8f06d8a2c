"""The processor, from what Linux tells, and the commit, from git."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarking.processor import commit, processor


def test_the_first_cpu_counts(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    flags = "fpu sse avx2 avx512f avx512_bf16 amx_tile vmx"
    one = f"cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n"
    path.write_text(f"processor\t: 0\n{one}\nprocessor\t: 1\n{one.replace('EPYC', 'OTHER')}\n")
    assert processor(path) == {
        "name": "AMD EPYC",
        "family": "25",
        "model": "17",
        "instructions": "avx2 avx512f avx512_bf16 amx_tile",
    }


def test_an_arm_processor_has_features(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm\n")
    assert processor(path)["instructions"] == "asimd sve bf16 i8mm"


def test_elsewhere_there_is_a_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert processor(tmp_path / "absent") == {"name": "arm64"}


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_words, **_options: (_ for _ in ()).throw(FileNotFoundError()))
    assert commit() is None
