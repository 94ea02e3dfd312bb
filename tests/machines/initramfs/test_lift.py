"""What a program needs is found, and lies in the guest where the program looks for it."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.initramfs import lift
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.initramfs.lift import (
    add_merged_layout,
    add_with_symlinks,
    guest_path,
    shared_libraries,
)

from . import newc

FakeLdd = Callable[[str], None]


@pytest.fixture
def fake_ldd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLdd:
    """Make ldd print that text, whatever it is asked; it notes its arguments in the file ``asked``."""

    def set_output(text: str) -> None:
        (tmp_path / "output").write_text(text)
        program = tmp_path / "ldd"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/output\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setattr(lift, "need", lambda command: program)

    return set_output


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF...")
    return path


def lifted(*paths: Path) -> newc.Archive:
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    for path in paths:
        add_with_symlinks(writer, path)
    writer.finish()
    return newc.read(buffer.getvalue())


def follow(archive: newc.Archive, name: str) -> newc.Member:
    """The member that the path leads to in the guest, over symlinks as its kernel would."""
    member = archive[name]
    for _ in range(40):
        if member.kind != "l":
            return member
        assert not member.content.startswith(b"/"), "it holds only where the archive is the root"
        target = PurePosixPath("/", member.name).parent / member.content.decode()
        member = archive[posixpath.normpath(target).lstrip("/")]
    raise AssertionError("the symlinks run in circles")


@pytest.mark.parametrize(
    ("host", "guest"),
    [
        ("/bin/sh", "usr/bin/sh"),
        ("/sbin/mkfs.xfs", "usr/sbin/mkfs.xfs"),
        ("/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("/usr/bin/python3", "usr/bin/python3"),
        ("/opt/python/bin/python3", "opt/python/bin/python3"),
        ("/libexec/tool", "libexec/tool"),
        ("/bin", "bin"),
    ],
)
def test_every_host_path_has_one_place_in_the_merged_layout(host: str, guest: str) -> None:
    assert guest_path(Path(host)) == guest


def test_the_guests_root_links_to_usr() -> None:
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    add_merged_layout(writer)
    writer.finish()
    read = newc.read(buffer.getvalue())
    for name in ("bin", "sbin", "lib", "lib64"):
        assert (read[name].kind, read[name].content.decode()) == ("l", f"usr/{name}")
        assert read[f"usr/{name}"].kind == "d"


def test_a_plain_file_is_copied(elf: Path) -> None:
    assert lifted(elf)[guest_path(elf)].content == b"\x7fELF..."


@pytest.mark.parametrize("target", ["program", "../{folder}/program", "{absolute}"])
def test_a_symlink_leads_to_its_file(elf: Path, target: str) -> None:
    link = elf.with_name("link")
    link.symlink_to(target.format(folder=elf.parent.name, absolute=elf))
    assert follow(lifted(link), guest_path(link)).content == b"\x7fELF..."


def test_a_chain_of_symlinks_over_folders_leads_to_its_file(elf: Path) -> None:
    folder = elf.parent
    (folder / "lib").mkdir()
    (folder / "lib64").mkdir()
    (folder / "lib" / "loader.so.2").symlink_to("../program")
    (folder / "lib64" / "loader.so").symlink_to("../lib/loader.so.2")
    (folder / "ld").symlink_to(folder / "lib64" / "loader.so")
    read = lifted(folder / "ld")
    assert follow(read, guest_path(folder / "ld")).content == b"\x7fELF..."
    assert len([member for member in read.members if member.kind == "-"]) == 1


@pytest.mark.skipif(not Path("/lib64/ld-linux-x86-64.so.2").exists(), reason="another loader")
def test_the_loader_of_the_root_leads_to_its_file() -> None:
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    assert follow(lifted(loader), guest_path(loader)).content == loader.read_bytes()


def test_no_member_is_named_over_its_parent(elf: Path) -> None:
    (elf.parent / "lib64").mkdir()
    link = elf.parent / "lib64" / "loader.so"
    link.symlink_to("../program")
    assert all(".." not in name.split("/") for name in lifted(link).names)


def test_a_file_that_two_symlinks_share_is_there_once(elf: Path) -> None:
    links = [elf.with_name(name) for name in ("a", "b")]
    for link in links:
        link.symlink_to("program")
    read = lifted(*links)
    assert [member.name for member in read.members if member.kind == "-"] == [guest_path(elf)]


def test_symlinks_that_run_in_circles_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InfrastructureError, match="too many symbolic links"):
        lifted(tmp_path / "a")


def test_libraries_and_loader_are_read_from_ldd(fake_ldd: FakeLdd, elf: Path) -> None:
    fake_ldd(
        "\tlinux-vdso.so.1 (0x00007ffd0a9f2000)\n"
        "\tlibmount.so.1 => /nowhere/libmount.so.1 (0x00007f55b0c5a000)\n"
        "\tlibc.so.6 => /nowhere/libc.so.6 (0x00007f55b0a79000)\n"
        "\t/nowhere64/ld-linux-x86-64.so.2 (0x00007f55b0d0a000)\n"
    )
    assert shared_libraries([elf]) == [
        Path("/nowhere/libc.so.6"),
        Path("/nowhere/libmount.so.1"),
        Path("/nowhere64/ld-linux-x86-64.so.2"),
    ]


def test_libraries_of_several_programs_are_listed_once(fake_ldd: FakeLdd, elf: Path) -> None:
    fake_ldd(
        "/bin/a:\n\tlibc.so.6 => /nowhere/libc.so.6 (0x1)\n/bin/b:\n\tlibc.so.6 => /nowhere/libc.so.6 (0x1)\n"
    )
    assert shared_libraries([elf, elf]) == [Path("/nowhere/libc.so.6")]


def test_a_static_program_needs_nothing(fake_ldd: FakeLdd, elf: Path) -> None:
    fake_ldd("\tnot a dynamic executable\n")
    assert shared_libraries([elf]) == []


def test_scripts_are_not_asked_for_libraries(fake_ldd: FakeLdd, elf: Path, tmp_path: Path) -> None:
    fake_ldd("")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    shared_libraries([script, elf])
    assert (tmp_path / "asked").read_text().split() == [str(elf)]


def test_a_missing_library_is_named(fake_ldd: FakeLdd, elf: Path) -> None:
    fake_ldd(
        "\tlibc.so.6 => /nowhere/libc.so.6 (0x00007f55b0a79000)\n\tlibinih.so.1 => not found\n",
    )
    with pytest.raises(
        InfrastructureError, match=r"the shared library libinih\.so\.1 .* is not on this host"
    ):
        shared_libraries([elf])


def test_what_ends_threads_is_lifted_though_nothing_lists_it(
    fake_ldd: FakeLdd, elf: Path, tmp_path: Path
) -> None:
    (tmp_path / "libgcc_s.so.1").touch()
    fake_ldd(f"\tlibc.so.6 => {tmp_path}/libc.so.6 (0x1)\n")
    assert tmp_path / "libgcc_s.so.1" in shared_libraries([elf])


def test_the_hosts_shell_has_a_loader_and_libc() -> None:
    names = " ".join(path.name for path in shared_libraries([Path("/bin/sh")]))
    assert "libc.so" in names
    assert "ld-linux" in names
