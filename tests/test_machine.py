"""The number of CPUs of a process, from files as the kernel writes them, and how its threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from transformer import machine
from transformer.commands import train


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


def printed(program: str) -> str:
    """The output of a program in whose environment nothing is said of waiting threads."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("module", ["", ".commands", ".commands.translate", ".commands.__main__"])
def test_importing_the_package_leaves_threads_alone_and_importing_a_command_does_not(
    tmp_path: Path, module: str
) -> None:
    (tmp_path / "loadavg").write_text("0.10 0.20 0.30 1009/2000 77\n")  # many others
    program = f"""
import os, pathlib, sys
import transformer, transformer.machine
transformer.machine._LOAD = pathlib.Path({str(tmp_path / "loadavg")!r})
assert "torch" not in sys.modules, "OpenMP reads the setting when torch is imported"
import transformer{module}
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""
    assert printed(program) == (f"None {'PASSIVE' if module else None}\n")


@pytest.mark.parametrize(("others", "expected"), [(0, "1000 None"), (1009, "None PASSIVE")])
def test_threads_of_training_sleep_soon_and_at_once_beside_other_programs(
    tmp_path: Path, others: int, expected: str
) -> None:
    (tmp_path / "loadavg").write_text(f"0.10 0.20 0.30 {1 + others}/2000 77\n")
    program = f"""
import os, pathlib, sys
import transformer.machine
transformer.machine._LOAD = pathlib.Path({str(tmp_path / "loadavg")!r})
import transformer.commands.long_run
assert "torch" not in sys.modules, "OpenMP reads the setting when torch is imported"
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""
    assert printed(program) == f"{expected}\n"


def test_training_prepares_its_threads_before_it_imports_anything() -> None:
    first = next(line for line in Path(train.__file__).read_text().splitlines() if line.startswith(("import", "from")))
    assert first.startswith("import transformer.commands.long_run ")


@pytest.mark.parametrize(
    ("load", "is_passive"),
    [
        ("0.10 0.20 0.30 1/2000 77", False),  # nothing but this thread
        ("9.90 9.90 9.90 1/2000 77", False),  # what was a minute ago does not matter
        ("0.10 0.20 0.30 3/2000 77", False),  # two others, as many as there are CPUs besides ours
        ("0.10 0.20 0.30 4/2000 77", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_threads_sleep_if_other_programs_need_the_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: str, is_passive: bool
) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "num_cpus", lambda: 5)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.setattr(machine, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(machine, "_OWN_THREADS", tmp_path)  # others of this process may run
    if load:
        (tmp_path / "loadavg").write_text(f"{load}\n")
    machine.let_threads_sleep()
    found = {name: os.environ.pop(name, None) for name in WAITING}
    assert found == {"OMP_WAIT_POLICY": "PASSIVE" if is_passive else None, "GOMP_SPINCOUNT": None}


def test_threads_of_the_process_itself_are_no_other_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numpy's library spins for a while after its import, which would else let all threads sleep."""
    monkeypatch.setattr(machine, "_OWN_THREADS", tmp_path)
    for number, state in ((7, "R"), (11, "S"), (13, "R")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_text(f"{number} (py (R) x) {state} 1 2 3\n")
    monkeypatch.setattr(machine, "_LOAD", tmp_path / "loadavg")
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3 5/99 7\n")
    assert (machine._num_running_here(), machine._num_running_others()) == (2, 3)


def test_a_program_that_runs_for_a_moment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([9, 9, 1, 9, 9])
    monkeypatch.setattr(machine, "_num_running_here", lambda: 1)
    monkeypatch.setattr(machine, "_read", lambda _: f"0.1 0.2 0.3 {next(looks)}/99 7")
    assert machine._num_running_others() == 0


@pytest.mark.parametrize("name", WAITING)
def test_a_users_own_setting_is_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in WAITING:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    monkeypatch.setattr(machine, "_num_running_others", lambda: 1009)
    before = dict(os.environ)
    machine.let_threads_sleep()
    machine.let_threads_sleep_soon()
    assert dict(os.environ) == before


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
