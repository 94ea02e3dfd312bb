"""The command line of ssh and the life of the shared connection, with a program that plays ssh."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import tools
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable, UsageError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.ssh import transport as transport_module
from pytest_kernelfs.machines.ssh.transport import SshTransport

# The shared connection makes its socket and waits; commands run here.
_PLAYS_SSH = """#!/bin/sh
echo "$@" >> {log}
for word; do
    case "$word" in ControlPath=*) path="${{word#ControlPath=}}";; esac
done
case " $* " in
    *" -N "*) {master};;
    *) for last; do :; done; exec sh -c "$last";;
esac
"""
_MASTER = 'touch "$path"; exec sleep 100'

MakeSsh = Callable[..., Path]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSsh]:
    """A program in the place of ssh, whose connection does ``master``; gives the log of its arguments."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    # Sockets have short names: a folder of pytest's is too deep.
    folder = tempfile.mkdtemp(prefix="kfs-", dir="/tmp")
    monkeypatch.setattr("tempfile.tempdir", folder)

    def make(master: str = _MASTER) -> Path:
        log = tmp_path / "log"
        (tmp_path / "ssh").write_text(_PLAYS_SSH.format(log=log, master=master))
        (tmp_path / "ssh").chmod(0o755)
        tools.find.cache_clear()
        return log

    yield make
    tools.find.cache_clear()
    shutil.rmtree(folder)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=evil", "a b", "a\nb"])
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError, match="no destination for ssh"):
        SshTransport(text)


def test_a_command_is_quoted_for_the_shell_there(ssh: MakeSsh) -> None:
    ssh()
    transport = SshTransport("root@box")
    done = transport.run(["printf", "%s|", "a b", "$HOME", "it's"], timeout=120)
    transport.close()
    assert done.stdout == "a b|$HOME|it's|"


def test_one_connection_serves_all_and_its_folder_goes_with_it(ssh: MakeSsh) -> None:
    log = ssh()
    transport = SshTransport("root@box", connect_timeout=7, silence=12)
    for _ in range(2):
        transport.run(["true"], timeout=120)
    calls = log.read_text().splitlines()
    assert sum(" -N " in call for call in calls) == 1
    for call in calls:
        assert "-o StrictHostKeyChecking=yes" in call
        assert "-o BatchMode=yes" in call
        assert "-o ConnectTimeout=7" in call
        assert "-o ServerAliveInterval=4 -o ServerAliveCountMax=3" in call
        assert "-- root@box" in call
        assert "-F" not in call
    assert len(list(lease.base_folder().iterdir())) == 1
    transport.close()
    transport.close()
    assert not transport.is_open
    assert list(lease.base_folder().iterdir()) == []


@pytest.mark.parametrize("name", ["plain", "a b", "100% %h", 'in "quotes"', "back\\slash", "it's", "a#b=c"])
def test_ssh_finds_the_socket_whatever_the_folder_is_called(name: str) -> None:
    path = Path("/tmp", name, "ssh")
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("this host has no ssh to ask")
    asked = [ssh, "-G", "-F", "none", "-o", f"ControlPath={transport_module.as_value(path)}", "box"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert f"controlpath {path}" in told.replace("%%", "%").splitlines()


def test_it_can_be_opened_again(ssh: MakeSsh) -> None:
    ssh()
    transport = SshTransport("box")
    transport.open()
    transport.close()
    assert transport.run(["echo", "again"], timeout=120).stdout == "again\n"
    transport.close()


def test_a_configuration_of_our_own_decides_on_host_keys(ssh: MakeSsh) -> None:
    log = ssh()
    transport = SshTransport("default", config_file=Path("/some/config"), strict=False)
    transport.open()
    transport.close()
    for call in log.read_text().splitlines():
        assert call.startswith("-F /some/config ")
        assert "StrictHostKeyChecking" not in call


def test_an_ssh_that_fails_is_explained(ssh: MakeSsh) -> None:
    ssh("echo 'root@box: Permission denied (publickey).' >&2; exit 255")
    transport = SshTransport("root@box")
    with pytest.raises(ProviderUnavailable, match="root@box over ssh: it refuses our key"):
        transport.open()
    assert list(lease.base_folder().iterdir()) == []


def test_an_ssh_that_does_not_get_on_is_ended(ssh: MakeSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh("exec sleep 100")
    monkeypatch.setattr("pytest_kernelfs.machines.ssh.transport._LOGIN_S", 0.2)
    start = time.monotonic()
    with pytest.raises(ProviderUnavailable, match=r"nobody was logged in after 0\.3 s"):
        SshTransport("box", connect_timeout=0.1).open()
    assert time.monotonic() - start < 60


def test_a_command_that_does_not_end_is_ended(ssh: MakeSsh) -> None:
    ssh()
    transport = SshTransport("box")
    with pytest.raises(InfrastructureError, match=r"wait for more than 0\.1 s"):
        transport.run(["sleep", "100"], timeout=0.1)
    transport.close()


def test_what_a_lost_connection_said_is_kept(ssh: MakeSsh) -> None:
    ssh(
        'touch "$path"; until [ -e "$path.end" ]; do sleep 0.01; done; '
        "echo Timeout, server box not responding. >&2; exit 255"
    )
    transport = SshTransport("box")
    transport.open()
    next(lease.base_folder().glob("*/ssh")).with_name("ssh.end").touch()
    deadline = time.monotonic() + 120
    while transport.is_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "server box not responding" in transport.explain()
    transport.close()
    assert "server box not responding" in transport.complaint("and more")
    assert transport.complaint("and more").endswith("and more")
