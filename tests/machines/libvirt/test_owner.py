"""Who owns what lies at a hypervisor, and when nobody does any more."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace

import pytest

from pytest_kernelfs.machines.lease import ProcessId
from pytest_kernelfs.machines.libvirt.owner import Owner

WEEK = 7 * 86400


@pytest.fixture
def me() -> Owner:
    return Owner.this_process()


@pytest.fixture
def gone(me: Owner) -> Owner:
    """An owner whose process has ended."""
    child = subprocess.Popen(["sleep", "600"])
    process = ProcessId.of(child.pid)
    child.kill()
    child.wait()
    return replace(me, process=process)


def test_a_token_is_the_whole_owner(me: Owner) -> None:
    assert Owner.parse(me.token) == me


def test_a_token_is_short_enough_for_sockets(me: Owner) -> None:
    longest = replace(me, process=ProcessId(4194304, 0xFFFFFFFFF))
    assert len(f"/var/lib/libvirt/images/kernelfs-{longest.token}-12345678/a1000") < 108


@pytest.mark.parametrize("text", ["", "default", "a-b-c-d-e-f", "abcdef-abcdef-abcd-1-1"])
def test_other_names_are_no_owners(text: str) -> None:
    assert Owner.parse(text) is None


def test_a_living_process_owns(me: Owner) -> None:
    assert not me.is_gone(local=True)
    assert not me.is_gone(local=False)


def test_a_process_that_has_ended_owns_nothing(gone: Owner) -> None:
    assert gone.is_gone(local=True)
    assert gone.is_gone(local=False)


def test_processes_that_cannot_be_seen_from_here_own_for_a_week(gone: Owner) -> None:
    for foreign in (replace(gone, host="000000"), replace(gone, namespace="0000")):
        assert not foreign.is_gone(local=False)
        assert replace(foreign, since=int(time.time()) - WEEK - 60).is_gone(local=False)


def test_an_earlier_boot_of_the_hypervisors_own_host_owns_nothing(me: Owner) -> None:
    earlier = replace(me, boot="000000")
    assert earlier.is_gone(local=True)
    assert not earlier.is_gone(local=False)


def test_who_uses_this_hosts_hypervisor_from_afar_owns(me: Owner) -> None:
    guest = replace(me, host="000000", boot="000000")
    assert not guest.is_gone(local=True)
