"""The number of CPUs of a process, from files as the kernel writes them, and how its threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from transformer import machine


@pytest.fixture
def cpus_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Counts the CPUs of a machine with 7, with these control groups of the process and files of quotas."""

    def count(groups: str, files: dict[str, str]) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5, 6}, raising=False)
        monkeypatch.setattr(machine, "_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(machine, "_MOUNTED", tmp_path / "mounted")
        (tmp_path / "cgroup").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "mounted" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return machine.num_cpus()

    return count


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 7),
        ("300000 100000\n", 3),
        ("150000 100000\n", 2),
        ("100000 100000\n", 1),
        ("5000 100000\n", 1),
        ("9900000 100000\n", 7),
        ("", 7),
        ("junk", 7),
        ("100000 0\n", 7),
        ("0 100000\n", 1),
        ("-1 100000\n", 7),
    ],
)
def test_a_quota_limits_the_cpus(cpus_by, quota: str, expected: int) -> None:  # type: ignore[no-untyped-def]
    assert cpus_by("0::/\n", {"cpu.max": quota}) == expected


def test_the_smallest_quota_of_the_groups_above_holds(cpus_by) -> None:  # type: ignore[no-untyped-def]
    files = {"jobs/cpu.max": "200000 100000\n", "jobs/one/cpu.max": "500000 100000\n", "cpu.max": "max 100000\n"}
    assert cpus_by("0::/jobs/one\n", files) == 2


def test_a_container_sees_its_own_group_as_the_root(cpus_by) -> None:  # type: ignore[no-untyped-def]
    assert cpus_by("0::/docker/0123456789ab\n", {"cpu.max": "200000 100000\n"}) == 2
    assert cpus_by("0::/../../elsewhere\n", {"cpu.max": "300000 100000\n"}) == 3


def test_quotas_of_the_first_version_of_control_groups_count(cpus_by) -> None:  # type: ignore[no-untyped-def]
    groups = "9:name=systemd:/x\n4:cpu,cpuacct:/docker/ab\n3:cpuset:/y\n0::/\n"
    places = [f"cpu,cpuacct/docker/ab/cpu.cfs_{name}_us" for name in ("quota", "period")]
    assert cpus_by(groups, dict(zip(places, ("250000\n", "100000\n"), strict=True))) == 3
    assert cpus_by(groups, dict(zip(places, ("-1\n", "100000\n"), strict=True))) == 7


def test_without_control_groups_the_affinity_or_the_machine_counts(cpus_by, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assert cpus_by("nothing like it\n::\n", {}) == 7
    monkeypatch.setattr(machine, "_PROCESS", Path("/nonexistent/cgroup"))
    assert machine.num_cpus() == 7
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.num_cpus() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.num_cpus() == 1


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize("module", ["", ".commands", ".commands.translate", ".commands.__main__"])
def test_importing_the_package_leaves_threads_alone_and_importing_a_command_does_not(module: str) -> None:
    program = f"""
import os, sys
import transformer
assert "torch" not in sys.modules, "OpenMP reads the setting when torch is imported"
import transformer{module}
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (f"{machine._SPINS if module else None} None\n")


@pytest.mark.parametrize("name", WAITING)
def test_a_users_own_setting_is_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in WAITING:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    machine.let_threads_sleep()
    assert dict(os.environ) == before
    monkeypatch.delenv(name)
    machine.let_threads_sleep()
    assert os.environ == {**{k: v for k, v in before.items() if k != name}, "GOMP_SPINCOUNT": machine._SPINS}
    monkeypatch.delenv("GOMP_SPINCOUNT")


def test_a_machine_without_a_place_for_temporary_files_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError, match="No usable temporary directory"):
        tempfile.gettempdir()
    machine.do_without_temporary_files()
    assert tempfile.gettempdir() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    machine.do_without_temporary_files()
    assert tempfile.gettempdir() == str(tmp_path)
