"""Whether a libvirtd listens, before Vagrant is asked for anything."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.vagrant import daemon


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the daemons' sockets are; sockets have short names."""
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    with tempfile.TemporaryDirectory(prefix="kfs-", dir="/tmp") as name:
        sockets = tuple(f"{name}/{each}" for each in ("libvirt-sock", "virtqemud-sock"))
        monkeypatch.setattr(daemon, "_SOCKETS", sockets)
        yield Path(name)


@pytest.mark.parametrize("name", ["libvirt-sock", "virtqemud-sock"])
def test_one_of_them_is_enough(folder: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / name))
        listener.listen()
        daemon.require_libvirt()
    with pytest.raises(ProviderUnavailable, match="Connection refused"):
        daemon.require_libvirt()


def test_none_is_told_in_one_line(folder: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        daemon.require_libvirt()
    told = str(caught.value)
    assert told.startswith("the provider vagrant needs libvirtd, which does not answer at qemu:///system (")
    assert f"{folder}/libvirt-sock: No such file or directory" in told
    assert "systemctl start libvirtd" in told
    assert "\n" not in told


def test_who_may_not_connect_is_told_how(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_refusal", lambda path: f"{path}: Permission denied")
    with pytest.raises(ProviderUnavailable, match="become a member of the group libvirt"):
        daemon.require_libvirt()


@pytest.mark.parametrize("uri", ["qemu:///session", "qemu+ssh://user@host/system", "qemu+tcp://host/system"])
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_seen_from_here_is_left_to_vagrant(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", uri)
    daemon.require_libvirt()


def test_the_socket_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", f"qemu:///system?socket={folder}/own")
    with pytest.raises(ProviderUnavailable, match="own: No such file"):
        daemon.require_libvirt()
