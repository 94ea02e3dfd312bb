"""The host and the tools, as they are."""

from __future__ import annotations

import os
import platform
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kernelfs import __version__, tools
from pytest_kernelfs.bundle import facts
from pytest_kernelfs.config import Config
from pytest_kernelfs.errors import ProviderUnavailable


def test_tools_tell_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda name: None if name == "mkfs.f2fs" else "/bin/echo")
    facts.tool_versions.cache_clear()
    text = facts.tool_versions()
    facts.tool_versions.cache_clear()
    assert f"pytest-kernelfs: {__version__}\n" in text
    assert "mkfs.f2fs: not on this host\n" in text
    assert "mkfs.xfs: /bin/echo -V\n" in text


def run(describe: Any) -> Any:
    config = SimpleNamespace(isolation="test", memory=1 << 30, cpus=2, cache_root="/cache")
    assert set(vars(config)) <= set(Config.__dataclass_fields__)
    return SimpleNamespace(config=config, provider=SimpleNamespace(describe=describe))


def test_the_host_is_told_of() -> None:
    text = facts.host_facts(run(lambda: "qemu 7.2, accelerator TCG"))
    assert platform.release() in text
    assert f"processors: {os.cpu_count()} " in text
    assert "machines: qemu 7.2, accelerator TCG\n" in text
    assert "default size: memory 1024M, cpus 2\n" in text


def test_a_provider_that_cannot_tell_is_no_error() -> None:
    def refuse() -> str:
        raise ProviderUnavailable("no QEMU")

    assert "machines: unknown: no QEMU" in facts.host_facts(run(refuse))
