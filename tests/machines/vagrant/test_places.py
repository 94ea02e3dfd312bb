"""Where the files of machines lie, and how those of killed runs are found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.vagrant import places

Fake = Callable[[str], Path]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hypervisor's files go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(folder))
    return folder


def orphan(place: places.Place) -> places.Place:
    """The same files, of an owner that is gone."""
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = lease.ProcessId.of(process.pid)
        process.kill()
    *_, namespace, rest = place.private.name.split("-", 3)
    private = place.private.rename(place.private.with_name(f"{owner.pid}-{owner.start}-{namespace}-{rest}"))
    public = place.public.rename(place.public.with_name(f"kernelfs-boot-{private.name}"))
    return places.Place(private, public, place.vagrantfile).noted(place.env)


def pretend_there_is_a_machine(place: places.Place) -> None:
    folder = place.private / "state/machines/default/libvirt"
    folder.mkdir(parents=True)
    (folder / "id").write_text("uuid")


def test_our_vagrantfile_and_recipe_are_found() -> None:
    folder = places.shipped_folder()
    assert (folder / "Vagrantfile").is_file()
    assert (folder / "build-box").stat().st_mode & 0o111


def test_a_hypervisor_may_read_what_it_boots_and_nothing_else(tmp_path: Path) -> None:
    place = places.make_place(tmp_path, tmp_path)
    assert place.public.stat().st_mode & 0o777 == 0o711
    assert place.console.stat().st_mode & 0o777 == 0o666
    assert place.private.stat().st_mode & 0o777 == 0o700
    place.remove()
    assert not place.public.exists()
    assert not place.private.exists()


def test_living_owners_keep_their_machines(tmp_path: Path) -> None:
    place = places.make_place(tmp_path, tmp_path).noted({})
    assert places.collect(tmp_path) == []
    assert place.private.is_dir()


def test_machines_of_killed_runs_are_destroyed(fake_vagrant: Fake, tmp_path: Path) -> None:
    folder = fake_vagrant('echo "$VAGRANT_DOTFILE_PATH $GIVEN" >> "$(dirname "$0")/said"')
    place = orphan(places.make_place(tmp_path, tmp_path).noted({"GIVEN": "value"}))
    pretend_there_is_a_machine(place)
    (line,) = places.collect(tmp_path)
    assert line == f"destroyed the machine {place.name}, whose owner is gone"
    assert (folder / "said").read_text().splitlines() == ["destroy --force", f"{place.private}/state value"]
    assert not place.private.exists()
    assert not place.public.exists()


def test_what_cannot_be_destroyed_stays_noted(fake_vagrant: Fake, tmp_path: Path) -> None:
    fake_vagrant("echo Failed to connect socket; exit 1")
    place = orphan(places.make_place(tmp_path, tmp_path).noted({}))
    pretend_there_is_a_machine(place)
    (line,) = places.collect(tmp_path)
    assert "could not destroy" in line
    assert "libvirtd does not answer" in line
    assert place.private.is_dir()


def test_files_without_a_machine_are_removed_without_vagrant(tmp_path: Path) -> None:
    noted = orphan(places.make_place(tmp_path, tmp_path).noted({}))
    assert len(places.collect(tmp_path)) == 1
    assert not noted.public.exists()
