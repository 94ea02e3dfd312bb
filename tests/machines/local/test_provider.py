"""Whether tests may run on this host, which is asked before anything is done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.guest import tenant, tenant_facts
from pytest_kernelfs.machines.local import provider as module
from pytest_kernelfs.machines.local.provider import LocalProvider
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from tests.fake_machine import kernel

SPEC = MachineSpec(1 << 30, 1)


def make(cache: Path, allowed: bool = True) -> LocalProvider:
    return LocalProvider(Settings(cache), allowed=allowed)


@pytest.mark.parametrize(
    ("allowed", "user", "said"),
    [
        (False, 0, "say --kernelfs-allow-local"),
        (False, 1000, "say --kernelfs-allow-local"),
        (True, 1000, "needs root, and this is user 1000: run pytest as root"),
    ],
)
def test_it_takes_leave_and_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool, user: int, said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    provider = make(tmp_path, allowed)
    for attempt in (provider.describe, provider.own_kernel, lambda: provider.start(kernel(), SPEC)):
        with pytest.raises(ProviderUnavailable, match=said):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_its_kernel_is_the_hosts_with_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    facts = {"release": "6.1.0-50-amd64", "build": "#1 SMP Debian 6.1.176-1 (2026-10-03)", "config": ""}
    monkeypatch.setattr(tenant_facts, "read", lambda: facts)
    monkeypatch.setattr(module, "_MODULES", tmp_path)
    assert make(tmp_path).own_kernel().modules is None
    (tmp_path / "6.1.0-50-amd64").mkdir()
    (tmp_path / "6.1.0-50-amd64" / "modules.dep").touch()
    found = make(tmp_path).own_kernel()
    assert (found.modules, str(found.version)) == (tmp_path / "6.1.0-50-amd64", "6.1.176")
    assert "this host's own kernel" in make(tmp_path).describe()


def test_what_killed_runs_left_is_collected_by_those_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant, "collect", lambda: ["loop device /dev/loop9"])
    assert make(tmp_path).collect() == ["loop device /dev/loop9"]
    assert make(tmp_path, allowed=False).collect() == []
