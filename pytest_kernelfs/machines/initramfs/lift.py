"""Finds what a set of host programs needs: their shared libraries, their loader, the symlinks on the way."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.tools import need

_LIBRARY = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
_MISSING = re.compile(r"^\s+(\S+) => not found", re.MULTILINE)

# The guest has the merged-/usr layout whatever the host has: one place for each name.
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib32": "usr/lib32", "lib64": "usr/lib64"}

# Where the guest looks for programs: the PATH that its init sets, in the merged layout.
_GUEST_PATH = frozenset(f"usr/{folder}" for folder in ("local/sbin", "local/bin", "sbin", "bin"))

# Loaded by name at run time, so no program lists them. glibc needs the first to end threads, and the second
# (before 2.34) to read /etc/passwd; without the others iptables knows no targets and no ports.
_LOADED_BY_NAME = (
    "libgcc_s.so.1",
    "libnss_files.so.2",
    "xtables/libxt_standard.so",
    "xtables/libxt_tcp.so",
    "xtables/libxt_udp.so",
)


def shared_libraries(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries, with the loader, of all these programs and extension modules.

    Raises: InfrastructureError if a library is missing on the host.
    """
    found: set[str] = set()
    paths = [str(path) for path in programs if _is_elf(path)]
    for start in range(0, len(paths), 200):
        output = _ldd(paths[start : start + 200])
        missing = _MISSING.search(output)
        if missing:
            raise InfrastructureError(
                f"the shared library {missing[1]} of a program to lift into the guest is not on this host; "
                "run 'ldd' on the host's tools, and repair the package that is broken"
            )
        found.update(_LIBRARY.findall(output))
    folders = {Path(path).parent for path in found}
    found.update(
        str(folder / name) for folder in folders for name in _LOADED_BY_NAME if (folder / name).exists()
    )
    return [Path(path) for path in sorted(found)]


def _ldd(paths: Sequence[str]) -> str:
    # ldd exits with 1 when one of several files is static; its text says all we need.
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(need("ldd")), *paths], capture_output=True, text=True, env=environment, check=False
    )
    return done.stdout


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def guest_path(path: Path) -> str:
    """Where a host path lies in the guest's merged layout, without a leading slash."""
    first, _, rest = str(path).lstrip("/").partition("/")
    return f"{MERGED[first]}/{rest}" if first in MERGED and rest else f"{first}/{rest}".rstrip("/")


def add_with_symlinks(archive: CpioWriter, path: Path) -> None:
    """Add a host file at its own path, and every symlink that leads from there to the real file."""
    for _ in range(40):
        if not path.is_symlink():
            archive.copy(guest_path(path), path)
            return
        target = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
        archive.symlink(guest_path(path), _relative(path, target))
        path = target
    raise InfrastructureError(f"too many symbolic links at {path}; repair that path on the host")


def put_on_path(archive: CpioWriter, program: Path) -> None:
    """A symlink where the guest looks for programs, to one that lies elsewhere.

    For what the host's PATH alone finds: programs built by hand, in a home, below /opt.
    """
    if str(Path(guest_path(program)).parent) not in _GUEST_PATH:
        link = Path("/usr/local/bin", program.name)
        archive.symlink(guest_path(link), _relative(link, program))


def _relative(link: Path, target: Path) -> str:
    """The way from the link to its target in the merged layout: it holds wherever the archive is mounted."""
    return os.path.relpath("/" + guest_path(target), f"/{Path(guest_path(link)).parent}")


def add_merged_layout(archive: CpioWriter) -> None:
    """The folders of /usr and the symlinks of the root that lead there."""
    for name, target in MERGED.items():
        archive.folder(target)
        archive.symlink(name, target)
