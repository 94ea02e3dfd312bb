"""Connections to a machine with a real sshd: as root, through sudo, and each way to fail."""

from __future__ import annotations

import time

import pytest

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.ssh.transport import SshTransport
from tests.vm.providers.sshd import SshdMachine


def _transport(machine: SshdMachine, name: str) -> SshTransport:
    return SshTransport(name, config_file=machine.config)


# The shell of "chatty" greets whoever comes.
@pytest.mark.parametrize("name", ["notours", "withsudo", "chatty", "url"])
def test_commands_run_as_root(sshd_machine: SshdMachine, name: str) -> None:
    known = f"ssh://root@127.0.0.1:{sshd_machine.port}" if name == "url" else name
    transport = _transport(sshd_machine, known)
    try:
        done = transport.run(["sh", "-c", "id -u; uname -r; echo 'to stderr' >&2; exit 7"], timeout=300)
        assert done.stdout.splitlines()[-2:] == ["0", sshd_machine.kernel.release]
        assert "to stderr" in done.stderr
        assert done.returncode == 7
        assert transport.answers()
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("intruder", "it refuses our key; make"),
        ("stranger", "its host key is not known here"),
        ("impostor", "its host key is not the one that is known for it"),
        ("nothinghere", "nothing listens there"),
        ("nowhere", "there is no host of that name"),
        ("nosudo", "let this user use sudo there without a password"),
    ],
)
def test_what_fails_is_told_at_once(sshd_machine: SshdMachine, name: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(ProviderUnavailable, match=name) as caught:
        _transport(sshd_machine, name).open()
    assert reason in str(caught.value)
    assert time.monotonic() - start < 50


def test_a_machine_that_is_silent_is_noticed(sshd_machine: SshdMachine) -> None:
    transport = SshTransport("notours", config_file=sshd_machine.config, silence=9.0)
    transport.open()
    sshd_machine.freeze()
    try:
        start = time.monotonic()
        assert not transport.answers()
        # By default it would be half a minute and more.
        assert time.monotonic() - start < 30
        assert "not responding" in transport.complaint()
    finally:
        sshd_machine.thaw()
        transport.close()
