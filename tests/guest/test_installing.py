"""Where installed programs are in a machine, and what they may replace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.guest import files, installing, journal
from pytest_kernelfs.guest.dispatch import GuestError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our place in the machine, which goes on after the tests."""
    monkeypatch.setattr(installing, "PLACE", str(tmp_path / "installed"))
    monkeypatch.setattr(journal, "_handle", -1)
    journal.begin(str(tmp_path / "journal"))
    return tmp_path / "installed"


def install(place: Path, name: str, target: Path, wrapper: str = "") -> None:
    assert installing.begin(name, 100)
    files.put(f"{place}/{name}/program/tool", b"#!/bin/sh\necho " + name.encode() + b"\n", 0o755)
    installing.finish(name, "program/tool", str(target), wrapper)


def test_heads_tell_files_apart(tmp_path: Path) -> None:
    for name, content in (
        ("a", b"x" * 5000),
        ("same", b"x" * 5000),
        ("longer", b"x" * 5001),
        ("other", b"y" * 5000),
    ):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("a", "same", "longer", "other", "missing")]
    heads = installing.heads(paths)
    assert list(heads) == paths[:4]
    assert heads[paths[0]] == heads[paths[1]] == installing.head(paths[0])
    assert len(set(heads.values())) == 3
    assert installing.machine() == os.uname().machine


def test_a_program_appears_and_is_known(place: Path) -> None:
    install(place, "one", place / "bin/tool")
    assert (place / "bin/tool").readlink() == place / "one/program/tool"
    assert not installing.begin("one", 100)
    assert journal.entries() == []


def test_a_wrapper_starts_what_cannot_start_itself(place: Path) -> None:
    install(place, "one", place / "bin/tool", "#!/bin/sh\nexec x\n")
    assert (place / "bin/tool").read_text() == "#!/bin/sh\nexec x\n"
    assert (place / "bin/tool").stat().st_mode & 0o777 == 0o755


def test_another_content_takes_the_place_of_the_one_before(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "opt/tool"
    install(place, "one", target)
    install(place, "two", target)
    installing.finish("two", "program/tool", str(target), "")
    assert target.readlink() == place / "two/program/tool"
    assert ["folder", str(tmp_path / "opt")] in journal.entries()
    assert ["link", str(target)] in journal.entries()
    assert [path.name for path in target.parent.iterdir()] == ["tool"]


def test_what_is_the_machines_own_is_left_alone(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "sh"
    target.write_text("the machine's own")
    with pytest.raises(GuestError, match=r"/sh is there already in this machine, and is left as it is"):
        install(place, "one", target)
    assert target.read_text() == "the machine's own"
    assert journal.entries() == []


def test_programs_are_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put(str(tmp_path / "tool"), b"", 0o755)
    files.put(str(tmp_path / "data"), b"", 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [installing.which(name) for name in ("tool", str(tmp_path / "tool"), "data", "no")] == [
        *(True, True),
        *(False, False),
    ]
