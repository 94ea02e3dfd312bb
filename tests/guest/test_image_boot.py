"""What PID 1 of our initial ramdisk is told to do with an image, and what our agent there waits for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import cgroups, dying, image_agent, image_boot, image_units, init, syscalls
from pytest_kernelfs.guest.root_disk import RootNotFound


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in place of /proc/cmdline."""
    path = tmp_path / "cmdline"
    monkeypatch.setattr(image_boot, "_COMMAND_LINE", str(path))
    return path


@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        ("console=ttyS0 quiet", {}),
        ("kernelfs.root=/dev/vda1 kernelfs.agent=off", {"root": "/dev/vda1", "agent": "off"}),
        ("kernelfs.partition=LABEL=a=b init=/bin/sh", {"partition": "LABEL=a=b", "init": "/bin/sh"}),
        ("kernelfs.root=/dev/vda kernelfs.root=/dev/vdb rdinit=/init", {"root": "/dev/vdb"}),
    ],
)
def test_the_command_line_says_what_is_wanted(command_line: Path, text: str, wishes: dict[str, str]) -> None:
    command_line.write_text(f"{text}\n")
    assert image_boot.wishes() == wishes


def test_programs_of_the_archive_are_started_by_its_loader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python").write_text("usr/lib64/ld.so\nusr/bin/python3.11\nusr\nusr/lib/x:usr/lib64\n")
    monkeypatch.setattr(image_boot, "_HOW_TO_START_PYTHON", str(tmp_path / "python"))
    archive = image_boot._Archive()
    place = image_boot.PLACE
    loader = [f"{place}/usr/lib64/ld.so", "--library-path", f"{place}/usr/lib/x:{place}/usr/lib64"]
    assert archive.start("usr/bin/sleep", "1") == [*loader, f"{place}/usr/bin/sleep", "1"]
    assert archive.start_python("pass")[:5] == [*loader, f"{place}/usr/bin/python3.11", "-sSB"]
    assert archive.environment == {"PYTHONHOME": f"{place}/usr"}


def test_a_root_without_an_init_is_told(tmp_path: Path) -> None:
    (tmp_path / "init").write_text("no program")
    told = f"the root on /dev/vda has no init: there is no program {tmp_path}/init"
    with pytest.raises(RootNotFound, match=told):
        image_boot._find_init(str(tmp_path / "init"), "/dev/vda")
    (tmp_path / "init").chmod(0o755)
    assert image_boot._find_init(str(tmp_path / "init"), "/dev/vda") == str(tmp_path / "init")


def test_systemd_is_given_its_units_in_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image_units, "_FOLDER", str(tmp_path / "system"))
    monkeypatch.setattr(image_units, "_CONFIGURATION", str(tmp_path / "system.conf.d"))
    image_units.write(["/loader", "/sleep", "infinity"])
    unit = (tmp_path / "system/sysinit.target.wants/kernelfs.service").read_text()
    assert "ExecStart=/loader /sleep infinity\nDelegate=yes\n" in unit
    assert (tmp_path / "system/timers.target").readlink() == Path("/dev/null")
    assert (tmp_path / "system.conf.d/kernelfs.conf").read_text().startswith("[Manager]\n")


class Off(Exception):
    """The machine was switched off."""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the agent says on the console."""
    lines: list[str] = []

    def power_off() -> None:
        raise Off

    monkeypatch.setattr(init, "log", lines.append)
    monkeypatch.setattr(syscalls, "power_off", power_off)
    return lines


def systemd(monkeypatch: pytest.MonkeyPatch, *states: str) -> list[tuple[str, ...]]:
    """Play a systemd that goes through these states; gives the commands that were run."""
    run: list[tuple[str, ...]] = []
    left = list(states)

    def play(*command: str) -> str:
        run.append(command)
        if command[1:2] == ("is-system-running",):
            return left.pop(0)
        return {
            "list-jobs": "1 a.service start waiting\n2 b.service start running\n",
            "list-units": "broken.service loaded failed failed Something\n",
        }.get(command[1] if len(command) > 1 else "", "")

    monkeypatch.setattr(image_agent, "_run", play)
    monkeypatch.setattr(image_agent, "_comm", lambda _pid: "systemd")
    monkeypatch.setattr(image_agent, "_program", lambda _pid: "/usr/lib/systemd/systemd")
    monkeypatch.setattr(image_agent, "_POLL_S", 0.0)
    monkeypatch.setattr(image_agent, "_TELL_S", -1.0)
    return run


def test_systemd_is_waited_for(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    run = systemd(monkeypatch, "", "starting", "running")
    image_agent._wait_for_init()
    assert run[-1][:2] == ("udevadm", "settle")
    assert said == [
        f"{image_agent.COMING_UP}systemd is silent, b.service running",
        f"{image_agent.COMING_UP}systemd is starting, b.service running",
    ]


def test_a_degraded_system_is_up_and_its_failures_are_told(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    systemd(monkeypatch, "degraded")
    image_agent._wait_for_init()
    assert said == ["the image's systemd is degraded: broken.service failed"]


def test_a_system_that_is_not_going_to_come_up_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    systemd(monkeypatch, "starting", "maintenance")
    with pytest.raises(Off):
        image_agent._wait_for_init()
    assert said[-1].startswith(f"{image_boot.FAILED}its systemd is in the state 'maintenance'")


def test_another_init_is_up_when_it_runs(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    run = systemd(monkeypatch)
    monkeypatch.setattr(image_agent, "_program", lambda _pid: "/bin/busybox")
    image_agent._wait_for_init()
    assert (run, said) == ([], [])


@pytest.fixture
def hierarchy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder in place of the hierarchy of cgroup version 2, with the cgroup that systemd gives us."""
    holder = tmp_path / image_units.CGROUP.lstrip("/")
    holder.mkdir(parents=True)
    (holder / "cgroup.procs").write_text("17\n18\n")
    monkeypatch.setattr(dying, "hierarchies", lambda: {"": str(tmp_path)})
    yield tmp_path
    cgroups.settle("", "")


def test_cgroups_of_tests_lie_in_a_subtree_that_is_ours(
    monkeypatch: pytest.MonkeyPatch, hierarchy: Path
) -> None:
    moved = []
    monkeypatch.setattr(cgroups, "write", lambda path, text: moved.append((path, text)))
    image_agent._settle()
    ours = f"{hierarchy}{image_units.CGROUP}"
    assert moved == [(f"{ours}/agent/cgroup.procs", pid) for pid in ("17", "18", str(os.getpid()))]
    assert cgroups.root() == cgroups.home() == ours
    (hierarchy / "system.slice/kernelfs.service/cgroup.subtree_control").write_text("memory\n")
    assert cgroups.enabled() == ["memory"]


def test_without_systemd_all_cgroups_are_ours(hierarchy: Path) -> None:
    (hierarchy / "system.slice/kernelfs.service/cgroup.procs").unlink()
    (hierarchy / "system.slice/kernelfs.service").rmdir()
    image_agent._settle()
    assert cgroups.home() == ""
    assert cgroups.root() == str(hierarchy)


def test_only_processes_in_our_subtree_can_be_left_by_tests(hierarchy: Path) -> None:
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert cgroups.may_hold(str(os.getpid()))
    cgroups.settle(f"{hierarchy}/elsewhere", "agent")
    assert not cgroups.may_hold(str(os.getpid()))
    cgroups.settle(f"{hierarchy}{own[3:].rstrip('/')}", "agent")
    assert cgroups.may_hold(str(os.getpid()))
