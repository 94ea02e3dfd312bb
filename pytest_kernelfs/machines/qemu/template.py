"""Templates: machines that were booted once and saved, to be forked for every test.

A template is a folder in the cache: the file that held the machine's memory,
and the state of its devices. Forks map the memory file privately: they share
its pages and write to none. A template never changes once it is published;
whoever uses it holds a shared lock, so that pruning leaves it alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu.command import KERNEL_HEAD, Launch, Memory, qemu_command
from pytest_kernelfs.shortage import shortage

KIND = "templates"
MEMORY = "memory"
STATE = "state"
_LOCK = "in-use"
_RECORD = "template.json"
_SECTOR = 512
_SETUP_SECTS = 0x1F1
# A booted machine fills about 250 MB of its memory file; less room than this is not worth the attempt.
_ROOM_NEEDED = 512 << 20


Identity = tuple[int, int]


class Unusable(InfrastructureError):
    """What was saved is gone or damaged, as far as one can tell: another try would do no better."""


def template_key(launch: Launch) -> str:
    """Names all that a template depends on: QEMU, processor, machine, kernel, initramfs, command line.

    Kernel and initramfs count by what they are, not by where they lie: no saved state tells that, and a cache
    may be moved.
    """
    kernel = replace(launch.kernel, image=Path("kernel"))
    command = qemu_command(replace(launch, kernel=kernel, initramfs=Path("initramfs")), Path("folder"))
    facts = [launch.qemu.fingerprint, launch.kernel.checksum, launch.initramfs.parent.name, *command]
    if launch.image is not None:
        facts.append(launch.image.identity)
    if launch.accel == "kvm":
        facts.append(_host_processor())
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]


def _host_processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def identity(folder: Path) -> Identity | None:
    """Tells a template from one that was made anew; None where there is none that is whole."""
    try:
        status = (folder / _RECORD).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


class TemplateStore:
    """The templates in a cache folder."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, key: str, build: Callable[[Path], None]) -> Path:
        """The template's folder, built by ``build(folder)`` if there is none; two processes build it once.

        Raises: InfrastructureError if the cache cannot be written; whatever ``build`` raises.
        """
        return self._cache.entry(KIND, key, build)

    def path(self, key: str) -> Path:
        """Where the template is, or would be."""
        return self._cache.path(KIND, key)

    def discard(self, key: str, opened: Identity | None) -> None:
        """Remove the template that was ``opened``, for it does not work; its forks are not harmed.

        One that another process has put in its place meanwhile stays.
        """
        path = self.path(key)
        doomed = path.with_name(f".doomed-{key}-{os.getpid()}")
        if identity(path) != opened:
            return
        try:
            path.rename(doomed)
        except OSError:
            return  # another process was faster
        shutil.rmtree(doomed, ignore_errors=True)

    def check_room(self, key: str) -> None:
        """Raises: InfrastructureError if the template is not there and there is no room to make it."""
        if self.path(key).is_dir():
            return
        folder = self._cache.root
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < _ROOM_NEEDED:
            raise InfrastructureError(
                f"there is no room for a template in {self._cache.root}: {free >> 20} MiB are free, "
                f"{_ROOM_NEEDED >> 20} MiB are needed; make room, or choose another with --kernelfs-cache DIR"
            )


def backed(launch: Launch, memory: Memory, *, incoming: bool = False) -> Launch:
    """The same launch with its memory in a file."""
    return replace(launch, memory=memory, incoming=incoming)


def check(folder: Path) -> None:
    """Raises: Unusable if a file is not as long as it was, as a crash of the host may leave it; Shortage.

    QEMU would wait for the rest of a state until its time is up.
    """
    try:
        with _read(folder):
            sizes = json.loads((folder / _RECORD).read_text())["sizes"]
            found = {name: (folder / name).stat().st_size for name in sizes}
    except (ValueError, KeyError, TypeError) as error:
        raise _incomplete(folder, error) from None
    for name in sizes:
        if found[name] != sizes[name]:
            raise Unusable(
                f"the file {name} of the template {folder} has {found[name]} bytes instead of {sizes[name]}"
            )


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Raises: Unusable if a file of a template cannot be read, Shortage if that is not the file's fault."""
    try:
        yield
    except OSError as error:
        raise shortage(f"read the template {folder}", error) or _incomplete(folder, error) from None


def _incomplete(folder: Path, error: Exception) -> Unusable:
    return Unusable(f"the template {folder} is not complete ({error})")


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Hold the shared lock of a template. Raises: Unusable if it is gone; Shortage."""
    with _read(folder):
        handle = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_in_use(folder: Path) -> bool:
    """Whether any process holds the template's lock."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def kernel_head(image: Path) -> bytes:
    """The real-mode part of a bzImage and one sector more: the least that QEMU accepts as a kernel.

    Format: Documentation/arch/x86/boot.rst of the kernel, field setup_sects.
    """
    with image.open("rb") as file:
        start = file.read(_SECTOR)
        setup_sectors = start[_SETUP_SECTS] or 4
        return start + file.read((setup_sectors + 1) * _SECTOR)


def save_to(path: Path) -> str:
    """The migration address that writes a state to a file, which is there once it is whole.

    QEMU has done its part when the last of it is in a pipe. ``file:`` is known only from QEMU 8.2 on.
    """
    part = shlex.quote(f"{path}.part")
    return f"exec:cat > {part} && mv {part} {shlex.quote(str(path))}"


def load_from(path: Path) -> str:
    """The migration address that reads a state from a file."""
    return f"exec:cat {shlex.quote(str(path))}"


def finish(folder: Path, kernel: Path, facts: dict[str, object]) -> None:
    """Complete a template's folder: the head of its kernel, its lock, and what people may want to know.

    All is on disk after that, so that a host that crashes leaves no template that only looks whole.
    """
    (folder / KERNEL_HEAD).write_bytes(kernel_head(kernel))
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / _RECORD).write_text(json.dumps({**facts, "sizes": sizes}, indent=1))
    (folder / _LOCK).touch()
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
