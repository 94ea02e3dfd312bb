"""Which folders are shared, and where they are in the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.sharing import PLACE
from pytest_kernelfs.machines.shares import Share, guest_path, parse_shares


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("src", "more/src", "a:b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    return tmp_path


def test_a_folder_appears_under_its_name(folder: Path) -> None:
    (share,) = parse_shares([str(folder / "src")])
    assert share == Share(folder / "src", f"{PLACE}/src", f"{PLACE}/src")
    assert str(share) == f"{folder}/src at {PLACE}/src"


def test_a_folder_appears_where_it_is_wanted(folder: Path) -> None:
    (share,) = parse_shares(["src:/opt//project/"], folder)
    assert share == Share(folder / "src", "/opt/project", f"{PLACE}/src")


def test_folders_of_one_name_have_different_places(folder: Path) -> None:
    shares = parse_shares(["src", "more/src", "more"], folder)
    assert [share.guest for share in shares] == [f"{PLACE}/src", f"{PLACE}/src-2", f"{PLACE}/more"]


def test_the_current_folder_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "src")
    assert parse_shares(["."])[0].host == folder / "src"
    assert parse_shares(["..:/x"])[0].host == folder


def test_names_with_colons(folder: Path) -> None:
    assert parse_shares(["a:b"], folder)[0].guest == f"{PLACE}/a:b"
    assert parse_shares(["a:b:/x"], folder)[0] == Share(folder / "a:b", "/x", f"{PLACE}/a:b")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["nowhere"], "nowhere is not there; write --kernelfs-share DIR, or DIR:GUEST"),
        (["file"], "file is no folder; bring a single file with vm.put or vm.install"),
        (["src:"], "'src:' is incomplete"),
        ([":/x"], "':/x' is incomplete"),
        ([""], "'' is incomplete"),
        (["src:x"], "'x' in 'src:x' is no absolute path"),
        (["src:/a/../b"], "'/a/../b' in 'src:/a/../b' is no absolute path without '..'"),
        (["src:/"], "a folder cannot appear at / in the guest"),
        (["src:/run/kernelfs/x"], "a folder cannot appear at /run/kernelfs/x in the guest"),
        (["src:/x", "more:/x"], "more and .*src would both be at /x"),
        (["src:/x", "more:/x/y"], "one share would lie within another: .*more at /x/y, and .*src at /x;"),
        (["src", "src:/x"], "src is shared twice"),
    ],
)
def test_what_cannot_be_shared(folder: Path, texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=rf"^--kernelfs-share: .*{said}"):
        parse_shares(texts, folder)


def test_files_are_found_in_the_guest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [(str(folder / "more"), "/m"), (str(folder / "src"), "/opt/src")]
    assert guest_path(folder / "src", table) == "/opt/src"
    assert guest_path(folder / "src/deep/../file", table) == "/opt/src/file"
    monkeypatch.chdir(folder / "more")
    assert guest_path(Path("src/x"), table) == "/m/src/x"


def test_files_are_found_through_symbolic_links(folder: Path) -> None:
    (folder / "link").symlink_to("src")
    assert guest_path(folder / "link/x", [(str(folder / "src"), "/s")]) == "/s/x"
    assert guest_path(folder / "src/x", [(str(folder / "link"), "/s")]) == "/s/x"


def test_what_is_not_shared(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"file is not shared with the machine \(.*src\); share its folder"):
        guest_path(folder / "file", [(str(folder / "src"), "/s")])
    with pytest.raises(UsageError, match=r"\(nothing is\)"):
        guest_path(folder / "file", [])
