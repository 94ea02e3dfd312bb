"""The QEMU of this host: found, of a known version, and not too old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import tools
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.qemu.binary import find_qemu

from .conftest import Program


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A host with nothing but the programs that the test makes."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_ALSO_SEARCHED", ())
    tools.find.cache_clear()
    find_qemu.cache_clear()
    yield
    tools.find.cache_clear()
    find_qemu.cache_clear()


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("QEMU emulator version 6.1.0", "6.1.0"),
        ("QEMU emulator version 10.0.2 (qemu-10.0.2-1.fc43)", "10.0.2"),
        ("QEMU emulator version 9.2.50 (v9.2.0-1-gdeadbeef-dirty)", "9.2.50"),
    ],
)
def test_the_version_is_read(program: Program, printed: str, version: str) -> None:
    path = program(f"echo '{printed}'")
    found = find_qemu()
    assert (found.path, found.version) == (path, version)


@pytest.mark.parametrize("version", ["6.0.1", "5.2.0", "2.11.1"])
def test_a_version_that_is_too_old_is_refused(program: Program, version: str) -> None:
    path = program(f"echo QEMU emulator version {version}")
    with pytest.raises(ProviderUnavailable) as caught:
        find_qemu()
    assert str(caught.value) == f"{path} is version {version}; 6.1 or newer is needed"


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("echo 'error while loading shared libraries: libaio.so.1' >&2; exit 127", "libaio.so.1"),
        ("echo something else", "something else"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_program_that_does_not_tell_its_version_is_refused(
    program: Program, script: str, seen: str
) -> None:
    program(script)
    with pytest.raises(
        ProviderUnavailable, match=rf"does not tell its version \(.*{seen}.*\); reinstall QEMU"
    ):
        find_qemu()


def test_a_program_for_another_processor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "qemu-system-x86_64"
    path.write_bytes(b"\x7fELF not for this machine")
    path.chmod(0o755)
    with pytest.raises(ProviderUnavailable, match="does not tell its version"):
        find_qemu()


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(ProviderUnavailable, match=r"'qemu-system-x86_64' .*'qemu-system-x86'"):
        find_qemu()


def test_the_fingerprint_changes_with_the_program(program: Program) -> None:
    program("echo QEMU emulator version 7.2.22")
    before = find_qemu().fingerprint
    find_qemu.cache_clear()
    program("echo QEMU emulator version 7.2.22 # rebuilt")
    assert find_qemu().fingerprint != before
