"""What the doctor finds, on hosts of many kinds."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_kernelfs import doctor, provision
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.doctor import Check
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.kernels import KernelSettings, apt
from pytest_kernelfs.machines.qemu import accel, binary
from pytest_kernelfs.tools import TOOLS, Tool

QEMU = TOOLS[0]
OPTIONAL = Tool("mkfs.example", "example-progs", "example", "example file systems")


class Usage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


def test_a_whole_examination_has_a_finding_for_everything(tmp_path: Path) -> None:
    names = [check.name for check in doctor.examine(KernelSettings(Cache(tmp_path)))]
    for name in (
        "python",
        "debian mirror",
        "debian keyring",
        *(tool.command for tool in TOOLS),
        "kvm",
        "cache",
        "memory",
        "shared memory",
    ):
        assert names.count(name) == 1


def test_looking_changes_nothing(tmp_path: Path) -> None:
    doctor.examine(KernelSettings(Cache(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("version", "state"), [((3, 9, 2), "missing"), ((3, 10, 0), "ok"), ((4, 0, 0), "ok")]
)
def test_python(version: tuple[int, int, int], state: str) -> None:
    assert doctor.python_check(version).state == state


def test_a_missing_tool_names_its_purpose_and_its_package() -> None:
    check = doctor.tool_check(OPTIONAL, None)
    assert (check.state, check.required) == ("missing", False)
    assert "example file systems" in check.detail
    assert "example-progs" in check.mend
    assert "kernelfs setup" in check.mend


@pytest.mark.parametrize(
    ("checks", "healthy"),
    [
        ([doctor.tool_check(OPTIONAL, None)], True),
        ([doctor.tool_check(QEMU, Path("/usr/bin/qemu"))], True),
        ([doctor.tool_check(QEMU, None)], False),
        ([Check("kvm", "warning", "slow", required=True)], True),
    ],
)
def test_only_what_is_required_makes_a_host_unfit(checks: list[Check], healthy: bool) -> None:
    assert doctor.healthy(checks) is healthy


def test_a_qemu_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> binary.Qemu:
        raise ProviderUnavailable("qemu is version 2.0; 6.1 or newer is needed")

    monkeypatch.setattr(binary, "find_qemu", too_old)
    check = doctor.qemu_check()
    assert (check.state, check.required) == ("missing", True)
    assert "6.1 or newer" in check.detail


@pytest.mark.parametrize(
    ("problem", "state", "says"),
    [
        (None, "ok", "first run will try it"),
        ("", "ok", "proved"),
        ("/dev/kvm does not exist", "warning", "does not exist; kernels run emulated"),
    ],
)
def test_kvm_is_not_believed_before_it_is_proved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: str | None, state: str, says: str
) -> None:
    monkeypatch.setattr(binary, "find_qemu", lambda: binary.Qemu(Path("qemu"), "9.0", "q"))
    monkeypatch.setattr(accel, "remembered_kvm_problem", lambda qemu, cache: problem)
    check = doctor.accelerator_check(tmp_path)
    assert check.state == state
    assert says in check.detail


def test_the_mirror_asked_for_is_told_without_its_password(tmp_path: Path) -> None:
    settings = KernelSettings(Cache(tmp_path), debian_mirror="http://me:secret@mirror.example/debian")
    check = doctor.mirror_check(settings)
    assert check.state == "ok"
    assert "mirror.example/debian" in check.detail
    assert "secret" not in check.detail


def test_a_host_without_a_mirror_can_still_test_kernels_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "read_apt", lambda cache: apt.AptFacts())
    check = doctor.mirror_check(KernelSettings(Cache(tmp_path)))
    assert (check.state, check.required) == ("warning", False)


def test_the_keyring(tmp_path: Path) -> None:
    keyring = tmp_path / "keys.gpg"
    assert doctor.keyring_check(keyring).state == "missing"
    keyring.touch()
    assert doctor.keyring_check(keyring) == Check("debian keyring", "ok", str(keyring))


def test_a_cache_tells_its_size_and_the_room_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 80 * doctor.GIB))
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "image").write_bytes(b"x" * 100_000)
    folder, space = doctor.cache_checks(tmp_path)
    assert str(tmp_path) in folder.detail
    assert folder.detail.endswith("KiB")
    assert (space.state, space.detail) == ("ok", "80.0 GiB free")


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 100))
    _, space = doctor.cache_checks(tmp_path / "not" / "there" / "yet")
    assert (space.state, space.detail) == ("warning", "only 100 B free")


def test_a_cache_that_cannot_be_written_makes_a_host_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (check,) = doctor.cache_checks(tmp_path)
    assert not doctor.healthy([check])
    assert "--cache" in check.mend


def test_a_cache_below_a_file_makes_a_host_unfit(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (check,) = doctor.cache_checks(tmp_path / "file" / "cache")
    assert not doctor.healthy([check])


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    4194304 kB\n", "ok"),
        ("MemAvailable: 1000 kB", "warning"),
        ("", "warning"),
    ],
)
def test_memory(tmp_path: Path, text: str, state: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert doctor.memory_check(tmp_path / "meminfo").state == state


def test_no_proc_is_a_warning(tmp_path: Path) -> None:
    assert doctor.memory_check(tmp_path / "none").state == "warning"


def test_shared_memory(tmp_path: Path) -> None:
    assert doctor.shared_memory_check(tmp_path).state == "ok"
    assert doctor.shared_memory_check(tmp_path / "none").state == "warning"


@pytest.mark.parametrize("there", [True, False])
def test_a_provider_is_not_required_and_tells_how_to_get_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    lacking = [] if there else [provision.Need("libvirtd", "a", "b", "c", True, lambda: False)]
    monkeypatch.setattr(provision, "missing", lambda wanted: lacking)
    check = doctor.provider_check("libvirt", "os" if there else "no_such_module", "libvirt-python")
    assert not check.required
    if there:
        assert check.state == "ok"
    else:
        assert check.detail == "lacks libvirtd, libvirt-python"
        assert check.mend == "kernelfs setup --provider libvirt; pip install 'pytest-kernelfs[libvirt]'"


def test_json_is_for_programs() -> None:
    data = json.loads(doctor.as_json([doctor.tool_check(QEMU, None)]))
    assert data["ok"] is False
    assert data["checks"][0]["name"] == QEMU.command
    assert set(data["checks"][0]) == {"name", "state", "detail", "mend", "required"}


def test_the_table_shows_what_was_found_literally() -> None:
    out = io.StringIO()
    doctor.write_table([Check("cache", "missing", "[red]/a[/red] is full", "make room")], out)
    assert "[red]/a[/red] is full" in out.getvalue()
    assert "make room" in out.getvalue()
