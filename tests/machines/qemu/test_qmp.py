"""The QEMU monitor where it cannot even begin: that is the host's fault, not that of what QEMU runs."""

from __future__ import annotations

import socket

import pytest

from pytest_kernelfs.machines.qemu import qmp
from pytest_kernelfs.shortage import Shortage
from tests.no_threads import no_threads


def test_a_monitor_that_finds_no_thread_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(qmp, "_loop", qmp._loop.__wrapped__)
    with no_threads(monkeypatch), pytest.raises(Shortage, match="a thread could not be started"):
        qmp.Monitor(ours)
    assert theirs.recv(1) == b""
    theirs.close()


def test_a_monitor_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(qmp, "DEFAULT_TIMEOUT_S", 0.05)
    with theirs, pytest.raises(Shortage, match=r"^QEMU did not answer 'connect' within 0\.05 s$"):
        qmp.Monitor(ours)
