"""Vagrant's commands: deadlines, what they print, and how they fail."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs import tools
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable, UsageError
from pytest_kernelfs.machines.vagrant import commands
from pytest_kernelfs.machines.vagrant.commands import Commands, address_of, host_of, with_paths_as_they_are

Fake = Callable[[str], Path]

CONFIG = """Host default
  HostName 192.168.121.5
  User vagrant
  Port 2222
  IdentityFile /somewhere
"""


def test_what_a_command_prints_is_given(fake_vagrant: Fake, tmp_path: Path) -> None:
    fake_vagrant(f"cat <<'END'\n{CONFIG}END\necho noise >&2")
    config = Commands(tmp_path, {}).ssh_config()
    assert config == CONFIG
    assert host_of(config) == "default"
    assert address_of(config) == ("192.168.121.5", 2222)


def test_a_detour_is_no_address() -> None:
    assert address_of(CONFIG + "  ProxyCommand ssh other -W %h:%p\n") is None


@pytest.mark.parametrize(
    "name", ["plain", "a b", "100% %h", 'in "quotes"', 'a"b', "back\\slash", "it's", "a#b=c"]
)
def test_ssh_finds_the_key_whatever_its_folder_is_called(name: str, tmp_path: Path) -> None:
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("this host has no ssh to ask")
    key = tmp_path / name / "key"
    key.parent.mkdir()
    quoted = f'"{key}"' if " " in str(key) else str(key)  # as Vagrant does it
    config = CONFIG.replace("/somewhere", quoted) + "  ProxyCommand echo no\n"
    file = tmp_path / "config"
    file.write_text(with_paths_as_they_are(config))
    asked = [ssh, "-v", "-F", str(file), "-o", "BatchMode=yes", "default"]
    told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stderr
    shown = str(key).replace("\\", "\\\\")
    assert f"identity file {shown} type " in told


def test_a_key_that_ssh_cannot_be_told_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be told to use a key in /some/\${HOME}/key"):
        with_paths_as_they_are(CONFIG.replace("/somewhere", "/some/${HOME}/key"))
    assert with_paths_as_they_are(CONFIG) == CONFIG


def test_it_runs_in_its_folder_with_its_environment(fake_vagrant: Fake, tmp_path: Path) -> None:
    folder = fake_vagrant('pwd; echo "$GIVEN"; echo "Vagrant 2.9"')
    assert Commands(tmp_path, {"GIVEN": "value"}).version() == "2.9"
    Commands(tmp_path, {}).up("libvirt", 60)
    assert (folder / "said").read_text().splitlines() == ["--version", "up --provider=libvirt"]


def test_several_machines_are_no_use(fake_vagrant: Fake, tmp_path: Path) -> None:
    fake_vagrant("printf 'Host one\\n  HostName a\\nHost two\\n  HostName b\\n'")
    with pytest.raises(UsageError, match="one machine; 'vagrant ssh-config' names 2"):
        Commands(tmp_path, {}).ssh_config()


def test_a_command_that_hangs_is_interrupted_at_its_deadline(fake_vagrant: Fake, tmp_path: Path) -> None:
    folder = fake_vagrant(
        f"trap 'echo tidied > {tmp_path}/tidied; exit 1' INT; echo waiting for an address\n"
        "while :; do sleep 0.05; done"
    )
    for seconds in (0.5, 5.0, 50.0):  # which a busy host may need to start it
        start = time.monotonic()
        with pytest.raises(InfrastructureError) as caught:
            Commands(folder, {}).up("libvirt", seconds)
        if (tmp_path / "tidied").exists():
            break
    assert f"did not end within {seconds:g} s" in str(caught.value)
    assert "waiting for an address" in str(caught.value)
    assert (tmp_path / "tidied").exists()
    assert time.monotonic() - start < seconds + 60


def test_there_is_no_waiting_after_what_is_hopeless(fake_vagrant: Fake, tmp_path: Path) -> None:
    fake_vagrant("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match="the kernel panicked"):
        Commands(tmp_path, {}).up("libvirt", 60, lambda: "the kernel panicked")
    assert time.monotonic() - start < 50


def test_a_failure_tells_what_was_said(fake_vagrant: Fake, tmp_path: Path) -> None:
    fake_vagrant("echo on one; echo on two >&2; exit 3")
    with pytest.raises(InfrastructureError, match=r"(?s)'vagrant destroy --force' failed.*on one.*on two"):
        Commands(tmp_path, {}).destroy()


def test_without_vagrant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "find", lambda _name: None)
    with pytest.raises(ProviderUnavailable, match="no Vagrant on this host; install it"):
        Commands(tmp_path, {})


def test_without_python_vagrant(fake_vagrant: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_vagrant("exit 0")
    monkeypatch.setattr(commands, "find_spec", lambda _name: None)
    with pytest.raises(ProviderUnavailable, match=r"pip install 'pytest-kernelfs\[vagrant\]'"):
        Commands(tmp_path, {})
    assert tools.find("vagrant") is not None
