"""Installing what the host lacks: which packages, which commands, and what if one fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_kernelfs import provision, tools
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.kernels import signature
from pytest_kernelfs.provision import APT, DNF, Need

UPDATE = "apt-get update"


class Shell:
    """Notes each command; those that hold a failing word fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str]) -> int:
        text = " ".join(command)
        self.ran.append(text)
        return 100 if any(word in text.split() for word in self.failing) else 0

    @property
    def installed(self) -> list[list[str]]:
        """The packages of each install command."""
        return [text.split("--no-install-recommends ")[1].split() for text in self.ran if " install " in text]


@pytest.fixture(autouse=True)
def root_with_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Root on a host whose apt has its lists."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(provision, "_APT_LISTS", tmp_path)
    lists = tmp_path / "mirror_main_binary-amd64_Packages.lz4"
    lists.touch()
    return lists


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Be nobody special; called with the path of sudo, or None."""

    def become(sudo: str | None) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(shutil, "which", lambda program: sudo if program == "sudo" else None)

    return become


def need(name: str, apt: str, dnf: str = "", *, present: bool = False) -> Need:
    return Need(name, apt, dnf or apt, "testing", False, lambda: present)


def test_every_tool_is_needed_and_debians_keys_and_the_tests_need_more() -> None:
    usual = [one.name for one in provision.needs()]
    assert usual == [*(tool.command for tool in tools.TOOLS), "debian-archive-keyring"]
    more = [one.name for one in provision.needs(for_tests=True)]
    assert more[: len(usual)] == usual
    assert {"gpg", "busybox", "libvirtd", "vagrant", "mmdebstrap"} <= set(more)


@pytest.mark.parametrize(
    ("providers", "more"),
    [
        (("qemu", "ssh", "local"), []),
        (("libvirt",), ["libvirtd", "virsh", "libvirt.h", "pkg-config", "gcc", "Python.h"]),
        (("vagrant",), ["vagrant", "vagrant-libvirt", "libvirtd", "qemu-img", "dnsmasq", "mmdebstrap"]),
    ],
    ids=["none", "libvirt", "vagrant"],
)
def test_a_provider_may_need_more(providers: tuple[str, ...], more: list[str]) -> None:
    usual = provision.needs()
    assert [one.name for one in provision.needs(providers)[len(usual) :]] == more


def test_what_is_no_program_is_looked_for_by_its_file(tmp_path: Path) -> None:
    pattern = str(tmp_path / "gems" / "vagrant-libvirt-*").lstrip("/")
    present = provision._any_file("nowhere/*", pattern)
    assert not present()
    (tmp_path / "gems" / "vagrant-libvirt-0.11.2").mkdir(parents=True)
    assert present()


@pytest.mark.parametrize("there", [True, False])
def test_debians_keys_are_looked_for_where_they_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    keyring = tmp_path / "keys.gpg"
    if there:
        keyring.touch()
    monkeypatch.setattr(signature, "DEFAULT_KEYRINGS", (tmp_path / "none.gpg", keyring))
    (keys,) = [one for one in provision.needs() if one.name == "debian-archive-keyring"]
    assert (provision.missing([keys]) == []) is there


def test_what_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "kernelfs-example"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = [
        Need(name, name, name, "testing", True, provision._finder(name))
        for name in (program.name, "kernelfs-no")
    ]
    assert [one.name for one in provision.missing(wanted)] == ["kernelfs-no"]


def test_a_program_installed_meanwhile_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = [Need("kernelfs-late", "p", "p", "testing", True, provision._finder("kernelfs-late"))]
    assert provision.missing(wanted) == wanted
    (tmp_path / "kernelfs-late").write_text("")
    (tmp_path / "kernelfs-late").chmod(0o755)
    assert provision.missing(wanted) == []


@pytest.mark.parametrize(("manager", "expected"), [(APT, ["kmod", "mount"]), (DNF, ["kmod", "util-linux"])])
def test_packages_are_named_once_and_per_distribution(
    manager: provision.PackageManager, expected: list[str]
) -> None:
    lacking = [need("depmod", "kmod"), need("losetup", "mount", "util-linux"), need("modprobe", "kmod")]
    assert provision.packages(manager, lacking) == expected


@pytest.mark.parametrize(("program", "manager"), [("apt-get", APT), ("dnf", DNF), ("pacman", None)])
def test_the_package_manager_is_the_hosts(
    monkeypatch: pytest.MonkeyPatch, program: str, manager: provision.PackageManager | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == program else None)
    assert provision.package_manager() is manager


def test_one_command_where_all_goes_well() -> None:
    shell = Shell()
    provision.install(APT, ["kmod", "mount"], shell)
    assert shell.ran == [
        "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "
        "install -y -q --no-install-recommends kmod mount"
    ]


def test_lists_that_are_absent_are_fetched_first(root_with_lists: Path) -> None:
    root_with_lists.unlink()
    shell = Shell()
    provision.install(APT, ["kmod"], shell)
    assert shell.ran[0].startswith(UPDATE)
    assert shell.installed == [["kmod"]]


def test_lists_that_are_too_old_are_fetched_and_a_package_that_is_not_to_be_had_is_left_out() -> None:
    shell = Shell("btrfs-progs")
    provision.install(APT, ["btrfs-progs", "kmod", "mount"], shell)
    all_three = ["btrfs-progs", "kmod", "mount"]
    assert shell.installed == [all_three, all_three, ["btrfs-progs"], ["kmod"], ["mount"]]
    assert [UPDATE in text for text in shell.ran].index(True) == 1


def test_lists_are_not_fetched_twice(root_with_lists: Path) -> None:
    root_with_lists.unlink()
    shell = Shell("kmod")
    provision.install(APT, ["kmod"], shell)
    assert len([text for text in shell.ran if UPDATE in text]) == 1


def test_dnf_has_no_lists_to_fetch() -> None:
    shell = Shell("kmod")
    provision.install(DNF, ["kmod", "xfsprogs"], shell)
    assert shell.ran == [
        f"dnf install -y --setopt=install_weak_deps=False {names}"
        for names in ("kmod xfsprogs", "kmod", "xfsprogs")
    ]


def test_an_ordinary_user_installs_through_sudo(ordinary_user: Callable[[str | None], None]) -> None:
    ordinary_user("/usr/bin/sudo")
    shell = Shell()
    provision.install(APT, ["kmod"], shell)
    assert shell.ran[0] == "sudo true"
    assert shell.ran[1].startswith("sudo env DEBIAN_FRONTEND=noninteractive apt-get")


@pytest.mark.parametrize(
    ("sudo", "reason"), [(None, "sudo is not on this host"), ("/usr/bin/sudo", "did not let you")]
)
def test_without_privileges_the_command_is_told_and_nothing_is_run(
    ordinary_user: Callable[[str | None], None], root_with_lists: Path, sudo: str | None, reason: str
) -> None:
    ordinary_user(sudo)
    shell = Shell("sudo")
    with pytest.raises(ProviderUnavailable, match=rf"{reason}.*run: env .* kmod"):
        provision.install(APT, ["kmod"], shell)
    assert shell.installed == []


def test_without_privileges_and_lists_the_command_to_fetch_them_is_told_too(
    ordinary_user: Callable[[str | None], None], root_with_lists: Path
) -> None:
    ordinary_user(None)
    with pytest.raises(ProviderUnavailable, match="run: env "):
        provision.install(APT, ["kmod"], Shell())
    root_with_lists.unlink()
    with pytest.raises(ProviderUnavailable, match=r"run: apt-get update -q && env .* kmod"):
        provision.install(APT, ["kmod"], Shell())


def test_the_exit_status_of_a_command_is_given() -> None:
    assert provision.run_visibly(["sh", "-c", "exit 7"]) == 7
    assert provision.run_visibly(["kernelfs-no-such-program"]) == 127
