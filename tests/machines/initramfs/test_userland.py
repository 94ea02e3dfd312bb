"""The userland archive: what is in it, what may be missing, and when it is built anew."""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_kernelfs import tools
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.initramfs import python, userland
from pytest_kernelfs.machines.initramfs.lift import guest_path

from . import newc

BUILD = """
import sys
from pathlib import Path
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.initramfs.userland import build_userland
print(build_userland(Cache(Path(sys.argv[1]))))
"""
# Python 3.10 marshals sets in constants in the order of their hashes.
SEEDS = ("1", "2") if sys.version_info >= (3, 11) else ("1", "1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The archive of this very host, built twice: two processes, two caches."""
    folders = [tmp_path_factory.mktemp(f"cache{number}") for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for folder, seed in zip(folders, SEEDS, strict=True)
    ]
    first, second = (Path(process.communicate(timeout=300)[0].strip()) for process in processes)
    yield first, second
    for path in (first, second):
        path.unlink()


@pytest.fixture(scope="module")
def archive(built: tuple[Path, Path]) -> newc.Archive:
    return newc.read(built[0].read_bytes())


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., newc.Archive]:
    """Build with three commands and no Python, some of the host's programs hidden."""

    found = tools.find

    def build(folder: Path, *, hidden: str = "", instead: Mapping[str, Path] | None = None) -> newc.Archive:
        def find(command: str) -> Path | None:
            return None if command == hidden else (instead or {}).get(command) or found(command)

        monkeypatch.setattr(userland, "_COMMANDS", ["sh", "cat", "sleep"])
        monkeypatch.setattr(userland, "find", find)
        monkeypatch.setattr(tools, "find", find)
        monkeypatch.setattr(python, "add_python", lambda archive: None)
        monkeypatch.setattr(python, "extension_modules", list)
        return newc.read(userland.build_userland(Cache(folder)).read_bytes())

    return build


def resolve(archive: newc.Archive, path: str) -> newc.Member:
    """The member behind symlinks, wherever in the path they are."""
    names = set(archive.names)
    done = ""
    rest = path.strip("/").split("/")
    while rest:
        done = f"{done}/{rest.pop(0)}".lstrip("/")
        assert done in names, f"{done} is not in the archive, on the way to {path}"
        member = archive[done]
        if member.kind == "l":
            target = member.content.decode()
            whole = posixpath.normpath(posixpath.join("/", posixpath.dirname(done), target))
            rest = [*whole.strip("/").split("/"), *rest]
            done = ""
    return archive[done]


def test_two_builds_give_the_same_bytes(built: tuple[Path, Path]) -> None:
    first, second = built
    assert first.parent.name == second.parent.name
    assert first.read_bytes() == second.read_bytes()


def test_the_archive_is_whole_and_another_may_follow(built: tuple[Path, Path], archive: newc.Archive) -> None:
    assert archive.end == built[0].stat().st_size
    assert archive.end % 4 == 0


def test_no_member_is_there_twice(archive: newc.Archive) -> None:
    assert len(set(archive.names)) == len(archive.names)


def test_the_first_program_can_be_run(archive: newc.Archive) -> None:
    init = archive["init"]
    assert init.permissions == 0o755
    interpreter = init.content.split(b"\n")[0].removeprefix(b"#!").split()[0].decode()
    assert resolve(archive, interpreter).content.startswith(b"\x7fELF")


@pytest.mark.parametrize("path", ["/bin/sh", "/usr/bin/python3", "/sbin/modprobe", "/bin/cat"])
def test_programs_are_where_people_look_for_them(archive: newc.Archive, path: str) -> None:
    program = resolve(archive, path)
    assert program.content.startswith(b"\x7fELF")
    assert program.permissions & 0o111


def test_programs_find_their_loader(archive: newc.Archive) -> None:
    shell = resolve(archive, "/bin/sh").content
    start = shell.index(b"/lib64/ld-linux") if b"/lib64/ld-linux" in shell else shell.index(b"/lib/ld-linux")
    loader = shell[start : shell.index(b"\0", start)].decode()
    assert resolve(archive, loader).content.startswith(b"\x7fELF")


def test_the_kernel_finds_a_console(archive: newc.Archive) -> None:
    console = archive["dev/console"]
    assert (console.kind, console.device) == ("c", (5, 1))


def test_the_users_are_known_with_their_passwords(archive: newc.Archive) -> None:
    users, passwords = (
        [line.split(":")[0] for line in archive[name].content.decode().splitlines()]
        for name in ("etc/passwd", "etc/shadow")
    )
    assert users == passwords == ["root", "nobody"]
    assert archive["etc/shadow"].permissions == 0o640


def test_what_libraries_load_by_name_is_there(archive: newc.Archive) -> None:
    names = {name.rpartition("/")[2] for name in archive.names}
    assert {"libgcc_s.so.1", "libnss_files.so.2"} <= names


def test_the_guests_code_is_there_as_byte_code(archive: newc.Archive) -> None:
    root = "usr/lib/kernelfs"
    for name in ("init", "dispatch", "commands", "mounts"):
        assert archive[f"{root}/pytest_kernelfs/guest/{name}.pyc"].content
    assert archive[f"{root}/execnet/gateway_base.pyc"].content
    assert archive[f"{root}/pytest_kernelfs/__init__.py"].content == b""


def test_nothing_of_the_hosts_side_is_there(archive: newc.Archive) -> None:
    ours = [name for name in archive.names if "/pytest_kernelfs/" in name]
    outside = [name for name in ours if "/pytest_kernelfs/guest" not in name]
    assert outside == ["usr/lib/kernelfs/pytest_kernelfs/__init__.py"]


def test_the_standard_library_is_there_but_for_its_tests(archive: newc.Archive) -> None:
    library = guest_path(python.standard_library())
    names = {name.removeprefix(f"{library}/") for name in archive.names}
    assert {"os.pyc", "subprocess.pyc", "ctypes/__init__.pyc", "threading.pyc"} <= names
    assert not {"os.py", "test", "idlelib", "site-packages", "__pycache__"} & names


def test_nothing_may_be_written_by_others(archive: newc.Archive) -> None:
    assert not [m.name for m in archive.members if m.kind in "-d" and m.permissions & 0o022]


def test_a_missing_optional_program_is_only_left_out(
    few_programs: Callable[..., newc.Archive], tmp_path: Path
) -> None:
    names = {name.rpartition("/")[2] for name in few_programs(tmp_path, hidden="sleep").names}
    assert {"cat", "sh"} <= names
    assert "sleep" not in names


def test_a_missing_required_program_is_named_with_its_package(
    few_programs: Callable[..., newc.Archive], tmp_path: Path
) -> None:
    with pytest.raises(ProviderUnavailable, match=r"'modprobe' .*install the package 'kmod'"):
        few_programs(tmp_path, hidden="modprobe")


def test_the_same_programs_are_not_lifted_again(
    few_programs: Callable[..., newc.Archive], tmp_path: Path
) -> None:
    few_programs(tmp_path)
    few_programs(tmp_path)
    assert len(list((tmp_path / "userland").iterdir())) == 1


def test_a_program_more_or_less_makes_another_archive(
    few_programs: Callable[..., newc.Archive], tmp_path: Path
) -> None:
    few_programs(tmp_path)
    few_programs(tmp_path, hidden="sleep")
    assert len(list((tmp_path / "userland").iterdir())) == 2


def test_a_program_from_an_unusual_folder_is_found_in_the_guest_too(
    few_programs: Callable[..., newc.Archive], tmp_path: Path
) -> None:
    own = tmp_path / "home" / "sleep"
    own.parent.mkdir()
    shutil.copy("/bin/sleep", own)
    read = few_programs(tmp_path, instead={"sleep": own})
    assert resolve(read, "/usr/local/bin/sleep").content == own.read_bytes()
    assert "usr/local/bin/cat" not in read.names


def test_changed_guest_code_makes_another_archive(
    few_programs: Callable[..., newc.Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_programs(tmp_path)
    source = tmp_path / "init.py"
    source.write_text("OTHER = 1")
    monkeypatch.setattr(userland, "guest_sources", lambda: [("pytest_kernelfs/guest/init.py", source)])
    read = few_programs(tmp_path)
    assert b"OTHER" in read["usr/lib/kernelfs/pytest_kernelfs/guest/init.pyc"].content
