"""The parameters of the new mount API, and what a kernel does that lacks it."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from pytest_kernelfs.guest import mount_api, namespaces, needs


def test_options_become_flags_and_parameters() -> None:
    flags, parameters = mount_api.plain_options("ro,noatime,metacopy=on,volatile,defaults,a=b=c")
    assert flags == 1 | 1024
    assert parameters == [("metacopy", "on"), ("volatile", None), ("a", "b=c")]


def test_a_file_system_that_cannot_be_opened_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(mount_api, "_call", refuse)
    assert not mount_api.takes("overlay", ("lowerdir+", "/"))


@pytest.mark.parametrize(
    ("known", "taken"),
    [
        (["kernelfs-is-no-parameter", "lowerdir+"], False),  # it reads nothing yet: all is accepted
        (["lowerdir+"], True),
        ([], False),
    ],
)
def test_what_accepts_everything_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, known: list[str], taken: bool
) -> None:
    def call(number: int, *arguments: object) -> int:
        if number == mount_api._FSOPEN:
            return os.open(os.devnull, os.O_RDONLY)
        key = arguments[2]
        if isinstance(key, bytes) and key.decode() not in known:
            raise OSError(errno.EINVAL, "unknown")
        return 0

    monkeypatch.setattr(mount_api, "_call", call)
    assert mount_api.takes("overlay", ("lowerdir+", "/")) is taken


def test_file_systems_are_those_of_the_kernel() -> None:
    assert needs.settle("filesystem", "proc") == (needs.MET, "")
    assert needs.settle("filesystem", "nosuchfs") == (needs.UNMET, "has no file system nosuchfs")


def test_the_holder_of_a_namespace_is_ended_once() -> None:
    with subprocess.Popen(["sleep", "1000"]) as holder:
        namespaces.end(holder.pid)
    namespaces.end(holder.pid)
    with pytest.raises(ProcessLookupError):
        os.kill(holder.pid, 0)
