"""Installs a kernel in a machine, as a Debian package made here, for the machine's own boot loader."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.boot import KERNEL_ARGUMENTS
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.ssh.transport import SshTransport
from pytest_kernelfs.machines.verdict import tail

_NAME = "kernelfs-kernel"
_THERE = "/var/tmp/kernelfs-kernel.deb"  # noqa: S108  (in a machine of our own)
# dpkg unpacks no other.
_FORMAT = tarfile.GNU_FORMAT
_SEND_S = 300.0
# An initial ramdisk is built there, which takes an emulated processor minutes.
_INSTALL_S = 900.0
# Interfaces keep the names that the machine knows them by.
_ARGUMENTS = " ".join(word for word in KERNEL_ARGUMENTS.split() if not word.startswith("net.ifnames"))

# As Debian's own kernel packages do, and then this kernel is made the one to boot, by its menu entry.
_POSTINST = """#!/bin/sh
set -e
# A ramdisk for this machine's hardware alone: one for all takes an emulated processor many minutes.
mkdir -p /etc/initramfs-tools/conf.d
echo MODULES=dep >/etc/initramfs-tools/conf.d/zz-kernelfs
DEB_MAINT_PARAMS=configure run-parts --report --exit-on-error --arg={release} --arg=/boot/vmlinuz-{release} \\
    /etc/kernel/postinst.d
# Those scripts have updated the menu.
entry=$(grep -o "gnulinux-{release}-advanced-[^']*" /boot/grub/grub.cfg | head -n 1)
test -n "$entry" || {{ echo "the menu of GRUB has no entry for {release}" >&2; exit 1; }}
mkdir -p /etc/default/grub.d
cat >/etc/default/grub.d/zz-kernelfs.cfg <<END
GRUB_DISABLE_SUBMENU=y
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="\\$GRUB_CMDLINE_LINUX {arguments}"
GRUB_DEFAULT="$entry"
END
update-grub
"""


def install(transport: SshTransport, kernel: Kernel, work: Path) -> None:
    """Install the kernel there, to be booted next; ``work`` is a folder here for the package.

    Raises: ProviderUnavailable if that machine cannot be given a kernel; InfrastructureError.
    """
    there = transport.run(["sh", "-c", "command -v dpkg && command -v update-grub"], timeout=60.0)
    if there.returncode:
        raise ProviderUnavailable(
            f"a kernel cannot be installed in {transport.destination}: that takes a Debian or Ubuntu with "
            "GRUB; choose another box with --kernelfs-vagrant-box, or one for libvirt, which boots kernels "
            "directly"
        )
    file = work / "kernel.deb"
    build(kernel, file)
    with file.open("rb") as content:
        _run(transport, f"cat > {_THERE}", content.fileno(), _SEND_S)
    file.unlink()
    # Two of the same name replace each other, so a kernel of the machine's own stays.
    _run(transport, f"dpkg -i {_THERE} && rm {_THERE} && sync", subprocess.DEVNULL, _INSTALL_S)


def _run(transport: SshTransport, script: str, stdin: int, timeout: float) -> None:
    command = [*transport.prefix(), "sh", "-c", f"'{script}'"]
    try:
        done = subprocess.run(
            guarded(command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"the kernel was not installed in {transport.destination} within {timeout:g} s"
        ) from None
    if done.returncode:
        said = tail(done.stdout.decode(errors="replace"))
        raise InfrastructureError(f"the kernel could not be installed in {transport.destination}:\n{said}")


def build(kernel: Kernel, file: Path) -> None:
    """Write the package of a kernel.

    The format: deb(5). Raises: InfrastructureError if there is no room for it.
    """
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:gz", format=_FORMAT) as archive:
        about = (
            f"Package: {_NAME}-{_package_part(kernel.release)}\n"
            f"Version: {kernel.version}\n"
            "Architecture: amd64\n"
            "Maintainer: pytest-kernelfs\n"
            f"Description: Linux {kernel.release}, to be tested\n"
        )
        _add(archive, "./control", about.encode(), 0o644)
        script = _POSTINST.format(release=kernel.release, arguments=_ARGUMENTS)
        _add(archive, "./postinst", script.encode(), 0o755)
    data = file.with_suffix(".data")
    with explain_os_errors("make a package", file.parent):
        _write_data(kernel, data)
        with file.open("wb") as package:
            package.write(b"!<arch>\n")
            for name, content in (
                ("debian-binary", b"2.0\n"),
                ("control.tar.gz", control.getvalue()),
                ("data.tar.gz", data.read_bytes()),
            ):
                package.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
                package.write(content + b"\n" * (len(content) % 2))
        data.unlink()


def _write_data(kernel: Kernel, path: Path) -> None:
    assert kernel.image is not None
    # The modules take most of it; the emulated machine unpacks little compression fastest.
    with (
        gzip.open(path, "wb", compresslevel=1) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=_FORMAT) as archive,
    ):
        for folder in ("./boot", "./lib", "./lib/modules"):
            _add_folder(archive, folder)
        _add(archive, f"./boot/vmlinuz-{kernel.release}", kernel.image.read_bytes(), 0o644)
        if kernel.config is not None:
            _add(archive, f"./boot/config-{kernel.release}", kernel.config.read_bytes(), 0o644)
        if kernel.modules is not None:
            archive.add(kernel.modules, f"./lib/modules/{kernel.release}", filter=_owned_by_root)


def _package_part(release: str) -> str:
    """A release as it may stand in a package's name."""
    return release.lower().replace("_", "-")


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(_owned_by_root(member), io.BytesIO(content))


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(_owned_by_root(member))
