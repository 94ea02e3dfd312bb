"""Where artifacts go: names that are safe and stay apart, and folders replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kernelfs.bundle import folder


@pytest.mark.parametrize("text", ["6.1.176", "test_x", "a.b_c"])
def test_a_plain_name_stays_what_it_is(text: str) -> None:
    assert folder.safe_name(text) == text


def test_a_tests_name_is_still_to_be_read() -> None:
    name = folder.safe_name("tests/test_a.py::TestX::test_y[3-a b]")
    assert name.startswith("tests-test_a.py-TestX-test_y-3-a-b-")


def test_of_a_long_name_the_end_is_kept() -> None:
    name = folder.safe_name("tests/" + "very/" * 100 + "test_a.py::test_y")
    assert name.startswith("very-very-")
    assert "test_a.py-test_y-" in name


@given(st.text(min_size=1))
def test_any_name_is_a_good_folder(text: str) -> None:
    name = folder.safe_name(text)
    assert 0 < len(name.encode()) <= 100
    assert "/" not in name
    assert not name.startswith(("-", "."))
    assert name not in (".", "..")


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_two_names_never_meet(texts: list[str]) -> None:
    assert folder.safe_name(texts[0]) != folder.safe_name(texts[1])


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    place = folder.place_of(tmp_path, "test_x", "6.1")
    folder.write(place, {"a.txt": "1", "b.txt": "2"})
    folder.write(place, {"a.txt": "3"})
    assert {path.name: path.read_text() for path in place.iterdir()} == {"a.txt": "3"}
    assert [path.name for path in place.parent.iterdir()] == ["6.1"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    place = folder.place_of(tmp_path, "test_x", "6.1")
    with pytest.raises(OSError, match="nowhere"):
        folder.write(place, {"nowhere/a.txt": "1"})
    assert list(place.parent.iterdir()) == []


def test_git_passes_artifacts_over_once(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    folder.ignore_in_git(root)
    assert "*" in (root / ".gitignore").read_text().splitlines()
    (root / ".gitignore").write_text("mine\n")
    folder.ignore_in_git(root)
    assert (root / ".gitignore").read_text() == "mine\n"
