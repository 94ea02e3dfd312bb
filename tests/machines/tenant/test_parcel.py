"""The code that is sent to another machine works there from memory, whatever Python that has."""

from __future__ import annotations

import importlib.util
import marshal
import struct
import subprocess
import sys
import zlib
from typing import Any

import pytest

from pytest_kernelfs.machines.tenant.parcel import BOOTSTRAP, MARK, pack

_HERE = importlib.util.MAGIC_NUMBER


def unpack(data: bytes) -> dict[str, Any]:
    (size,) = struct.unpack("!I", data[:4])
    assert len(data) == 4 + size
    content: dict[str, Any] = marshal.loads(zlib.decompress(data[4:]))
    return content


def start(said: bytes) -> subprocess.CompletedProcess[bytes]:
    """A Python as it is started over there, with a host that says that."""
    command = [sys.executable, "-IS", "-c", BOOTSTRAP]
    return subprocess.run(command, input=said, capture_output=True, timeout=300, check=False)


@pytest.mark.parametrize("magic", [_HERE, b"other"], ids=["compiled", "source"])
def test_it_holds_all_of_the_guest_and_what_that_imports(magic: bytes) -> None:
    content = unpack(pack(magic, {"only": "facts"}))
    names = set(content["modules"])
    assert {"pytest_kernelfs", "pytest_kernelfs.guest", "pytest_kernelfs.guest.tenant", "execnet"} < names
    assert "execnet.gateway_base" in names
    assert content["settings"] == {"only": "facts"}
    assert content["compiled"] == (magic == _HERE)
    source = content["modules"]["pytest_kernelfs.guest.dispatch"]
    assert (b"def serve(" in source) != content["compiled"]


@pytest.mark.parametrize("magic", [_HERE, b"other"], ids=["compiled", "source"])
def test_it_is_loaded_by_a_python_that_has_nothing_of_ours(magic: bytes) -> None:
    done = start(pack(magic, {"only": "facts"}))
    mark, answer = done.stdout.splitlines()[1:]
    assert mark == MARK + _HERE.hex().encode()
    assert answer.startswith((b'{"release": ', b'{"error": "tests need root there'))
    assert done.stderr == b""


def test_a_host_that_hangs_up_at_once_ends_it() -> None:
    done = start(b"")
    assert done.returncode == 1
    assert done.stderr == b""
