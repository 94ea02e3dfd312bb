"""The QEMU monitor where it cannot even begin."""

from __future__ import annotations

import socket

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu import qmp
from tests.no_threads import no_threads


def test_a_monitor_that_finds_no_thread_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(qmp, "_loop", qmp._loop.__wrapped__)
    with no_threads(monkeypatch), pytest.raises(InfrastructureError, match="a thread could not be started"):
        qmp.Monitor(ours)
    assert theirs.recv(1) == b""
    theirs.close()
