"""Our box: built once, by the recipe, into a home of Vagrant's that has the user's plugins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.machines.vagrant import box

Fake = Callable[[str], Path]


@pytest.fixture(autouse=True)
def tools_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(box, "find", lambda name: Path("/bin") / name)
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "users"))


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Has the box built by a script of the test's."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(box, "shipped_folder", lambda: folder)

    def write(script: str) -> None:
        (folder / "build-box").write_text(script)

    return write


def test_it_is_built_and_added_once(
    recipe: Callable[[str], None], fake_vagrant: Fake, tmp_path: Path
) -> None:
    recipe('echo content > "$1"')
    folder = fake_vagrant('test "$1 $2" = "box add" && cp "$4" "$VAGRANT_HOME/added"')
    home = box.home_with_box(Cache(tmp_path / "cache"))
    assert (home / "added").read_text() == "content\n"
    assert box.home_with_box(Cache(tmp_path / "cache")) == home
    assert [line.split()[:3] for line in (folder / "said").read_text().splitlines()] == [
        ["box", "add", box.box_name()]
    ]
    assert not (home / "work").exists()


def test_another_recipe_is_another_box(
    recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe("one")
    one = box.box_name()
    recipe("another")
    another = box.box_name()
    monkeypatch.setenv("BOX_PACKAGES", "nginx")
    assert len({one, another, box.box_name()}) == 3


def test_the_users_plugins_are_lent(
    recipe: Callable[[str], None], fake_vagrant: Fake, tmp_path: Path
) -> None:
    recipe('echo content > "$1"')
    fake_vagrant('mkdir -p "$VAGRANT_HOME/gems/3.1"')
    (tmp_path / "users/gems").mkdir(parents=True)
    (tmp_path / "users/plugins.json").write_text("{}")
    home = box.home_with_box(Cache(tmp_path / "cache"))
    assert (home / "gems").readlink() == tmp_path / "users/gems"
    assert (home / "plugins.json").read_text() == "{}"
    assert (tmp_path / "users/gems").is_dir()


def test_a_recipe_that_fails_leaves_its_words_and_nothing_else(
    recipe: Callable[[str], None], fake_vagrant: Fake, tmp_path: Path
) -> None:
    recipe("echo no mirror today; exit 7")
    fake_vagrant("exit 0")
    with pytest.raises(InfrastructureError, match=r"(?s)failed \(exit code 7\).*no mirror today"):
        box.home_with_box(Cache(tmp_path / "cache"))
    assert list((tmp_path / "cache" / box.KIND).iterdir()) == []


def test_missing_programs_are_named(
    recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe("")
    monkeypatch.setattr(box, "find", lambda name: None if name == "mmdebstrap" else Path("/bin") / name)
    with pytest.raises(ProviderUnavailable, match="apt-get install mmdebstrap"):
        box.home_with_box(Cache(tmp_path / "cache"))
