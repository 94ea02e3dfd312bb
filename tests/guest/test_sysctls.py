"""What somebody has set in a machine that others use too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import audit, inventory, journal, kmsg, references, sysctls


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is below /proc/sys."""
    for name, value in {
        "vm/swappiness": "60\n",
        "vm/drop_caches": "0\n",
        "kernel/sem": "32000\t1024\n",
        "kernel/panic": "0\n",
        "kernel/hung_task_detect_count": "0\n",
        "kernel/sched_domain/cpu0/domain0/max_newidle_lb_cost": "25000\n",
        "fs/binfmt_misc/status": "enabled\n",
        "net/core/somaxconn": "1\n",
        "fs/file-nr": "1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value)
    (tmp_path / "fs/file-nr").chmod(0o444)
    monkeypatch.setattr(sysctls, "_FOLDER", str(tmp_path))
    return tmp_path


def _set_all(folder: Path) -> None:
    for path in folder.glob("*/**/*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_text("7\n")
    (folder / "fs/file-nr").chmod(0o444)


def test_what_was_set_by_hand_is_told_with_what_it_was(folder: Path) -> None:
    before = sysctls.read_all()
    assert sysctls.changed(before) == []
    _set_all(folder)
    (folder / "kernel/panic").unlink()
    assert sorted(sysctls.changed(before)) == [
        "sysctl: kernel.sem is 7, and was 32000 1024",
        "sysctl: vm.swappiness is 7, and was 60",
    ]


def test_what_is_of_a_namespace_goes_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "entries", lambda: [["boot", "x"], ["namespaces"]])
    before = sysctls.read_all()
    _set_all(folder)
    assert not any("kernel.sem" in line for line in sysctls.changed(before))


def test_what_was_set_through_us_is_set_back_by_us(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sysctls.read_all()
    _set_all(folder)
    monkeypatch.setattr(journal, "entries", lambda: [["sysctl", "vm.swappiness", "vm.swappiness", "60"]])
    assert not any("swappiness" in line for line in sysctls.changed(before))


@pytest.mark.parametrize("others", [True, False])
def test_it_is_a_leak_where_the_machine_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr(journal, "is_kept", lambda: others)
    monkeypatch.setattr(inventory, "state", dict)
    monkeypatch.setattr(references, "counted", dict)
    monkeypatch.setattr(references, "unexplained", lambda _before: [])
    monkeypatch.setattr(kmsg, "open_at_end", lambda: -1)
    audit.remember()
    (folder / "vm/swappiness").write_text("7")
    told = ["sysctl: vm.swappiness is 7, and was 60"] if others else []
    assert audit.left_behind(0.0) == told


def test_those_of_this_kernel_stay_as_they_are() -> None:
    """The kernel itself changes none of what is looked at."""
    before = sysctls.read_all()
    assert len(before) > 50
    assert len(sysctls.changed(before)) < 3, "others on this host may have set one"
