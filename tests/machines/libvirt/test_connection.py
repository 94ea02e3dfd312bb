"""Where a URI leads, and what is said if it leads nowhere."""

from __future__ import annotations

import sys

import pytest

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.libvirt import api
from pytest_kernelfs.machines.libvirt.connection import Connection, is_local, without_questions


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///session", True),
        ("qemu:///system", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("qemu+ssh://root@host/system", False),
        ("qemu+tls://host/system", False),
    ],
)
def test_a_uri_without_a_host_is_local(uri: str, local: bool) -> None:
    assert is_local(uri) is local


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("qemu:///session", "qemu:///session"),
        ("qemu+ssh://host/system", "qemu+ssh://host/system?no_tty=1"),
        ("qemu+ssh://host/system?keyfile=/k", "qemu+ssh://host/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://host/system?no_tty=0", "qemu+ssh://host/system?no_tty=0"),
    ],
)
def test_ssh_is_told_to_ask_nothing(uri: str, asked: str) -> None:
    assert without_questions(uri) == asked


def test_without_libvirt_python_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(ProviderUnavailable, match=r"pip install 'pytest-kernelfs\[libvirt\]'"):
        api.library.__wrapped__()


def test_a_hypervisor_that_is_not_there_is_told() -> None:
    pytest.importorskip("libvirt")
    uri = "qemu+unix:///system?socket=/nowhere/libvirt-sock"
    with pytest.raises(ProviderUnavailable, match=r"cannot connect to .*/nowhere/.*start its daemon"):
        Connection(uri)


@pytest.mark.parametrize("uri", ["no uri", "qemu+pigeon://host/system"])
def test_a_uri_that_libvirt_cannot_read_is_to_be_written_another_way(uri: str) -> None:
    pytest.importorskip("libvirt")
    with pytest.raises(ProviderUnavailable, match=r"; write --kernelfs-libvirt-uri as qemu:///session, "):
        Connection(uri)


def test_only_qemu_will_do() -> None:
    pytest.importorskip("libvirt")
    with pytest.raises(ProviderUnavailable, match=r"test:///default leads to TEST; only QEMU"):
        Connection("test:///default")
