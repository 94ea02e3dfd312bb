"""Where shared folders are in a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_kernelfs.guest import journal, meminfo, sharing
from pytest_kernelfs.guest.dispatch import GuestError

MIB = 1 << 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our place in the machine, which goes on after the tests."""
    monkeypatch.setattr(sharing, "_TABLE", str(tmp_path / "shares.json"))
    monkeypatch.setattr(journal, "_handle", -1)
    journal.begin(str(tmp_path / "journal"))
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


def test_there_has_to_be_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meminfo, "read", lambda name: {name: 100 * MIB})
    sharing.make_room(str(place / "new"), 68 * MIB)
    assert (place / "new").is_dir()
    said = (
        r"^68\.0 MiB do not fit into this machine, which has room for 68\.0 MiB; give it more \(--kernelfs-m"
    )
    with pytest.raises(GuestError, match=said):
        sharing.make_room(str(place), 68 * MIB + 1)


def test_a_full_file_system_has_no_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meminfo, "read", lambda name: {name: 1 << 60})
    with pytest.raises(GuestError, match=r"^1048576\.0 MiB do not fit into this machine"):
        sharing.make_room(str(place), 1 << 40)


def test_a_folder_appears_where_it_is_wanted(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "opt/deep/project"
    for _ in range(2):
        sharing.appear("/home/me/project", str(place), str(target))
        assert target.readlink() == place
        assert sharing.table() == [("/home/me/project", str(target))]
    assert journal.entries() == [
        ["folder", str(tmp_path / "opt")],
        ["folder", str(tmp_path / "opt/deep")],
        ["link", str(target)],
    ]


def test_a_folder_may_appear_where_its_content_is(place: Path) -> None:
    sharing.appear("/home/me/a", str(place), str(place))
    sharing.appear("/home/me/b", str(place / "b"), str(place / "b"))
    assert sharing.table() == [("/home/me/a", str(place)), ("/home/me/b", str(place / "b"))]
    assert journal.entries() == []


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_what_is_there_is_left_alone(place: Path, tmp_path: Path, taken: str) -> None:
    target = tmp_path / "target"
    if taken == "folder":
        target.mkdir()
    elif taken == "file":
        target.touch()
    else:
        target.symlink_to("elsewhere")
    with pytest.raises(
        GuestError, match=r"cannot share a folder at .*/target in this machine: File exists; give"
    ):
        sharing.appear("/home/me/project", str(place), str(target))
    assert sharing.table() == []
    assert journal.entries() == []


def test_nothing_is_shared_at_first(place: Path) -> None:
    assert sharing.table() == []


def test_the_table_is_one_of_pairs(place: Path, tmp_path: Path) -> None:
    sharing.appear("/h", str(place), str(place))
    assert json.loads((tmp_path / "shares.json").read_text()) == [["/h", str(place)]]
