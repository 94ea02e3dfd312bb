"""Lease files: who owns which machine, so that nothing outlives its owner.

Every machine has a folder of its own, below one folder per user that only
this user may enter. The folder holds the machine's sockets, console, disks
and its lease: the owner's and the machine's process, each by number and start
time. A SIGKILL of the owner ends its machines (PR_SET_PDEATHSIG); the folders
it leaves are removed by the next run, or by ``kernelfs gc``, in the same PID
namespace: in any other, numbers mean other processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError

_LEASE = "lease.json"
_KERNEL = "kernel"
# sockaddr_un holds 108 bytes; our longest socket name below the base takes 40.
_LONGEST_BASE = 60
# For ssh, whose socket is there, it begins the name of a variable, however it is quoted.
_VARIABLE = "${"


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one: its number and its start time in clock ticks."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, _start_time(pid))

    @property
    def alive(self) -> bool:
        return self.start != 0 and _start_time(self.pid) == self.start

    @property
    def age(self) -> float:
        """Seconds since it started."""
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(up - self.start / os.sysconf("SC_CLK_TCK"), 0.0)

    def kill(self) -> bool:
        """Send SIGKILL if it is still the same process; False if it is gone."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def base_folder() -> Path:
    """The folder of this user's machines, made 0700 if it is not there.

    Raises: InfrastructureError if it cannot be made, or belongs to somebody else.
    """
    path = Path(tempfile.gettempdir()) / f"kernelfs-{os.getuid()}"
    if len(str(path)) > _LONGEST_BASE or _VARIABLE in str(path) or not str(path).isprintable():
        path = Path("/tmp") / path.name  # noqa: S108  (checked below)
    with explain_os_errors("make a folder for machines", path, "TMPDIR"):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass  # most often ours, from an earlier run
        status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not stat.S_ISDIR(status.st_mode):
        raise InfrastructureError(
            f"the folder {path} is not ours alone (owner {status.st_uid}, mode {status.st_mode & 0o777:o}); "
            "remove it, or set TMPDIR to another place"
        )
    return path


def make_folder() -> Path:
    """A fresh folder for one machine, already leased to this process.

    Raises: InfrastructureError.
    """
    base = base_folder()
    with explain_os_errors("make a folder for a machine", base, "TMPDIR"):
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{_namespace()}-", dir=base))
        write(folder, None)
    return folder


def make_data_folder(scratch: Path) -> Path:
    """A fresh folder below ``scratch`` for what is large: disks, memory. It is named after this process.

    Raises: InfrastructureError.
    """
    owner = ProcessId.of(os.getpid())
    with explain_os_errors("make a folder for disks", scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{owner.pid}-{owner.start}-{_namespace()}-", dir=scratch))


def write(folder: Path, machine_pid: int | None) -> None:
    """Note the machine's process in the lease of a folder."""
    record = {
        "owner": asdict(ProcessId.of(os.getpid())),
        "machine": asdict(ProcessId.of(machine_pid)) if machine_pid else None,
    }
    with explain_os_errors("write a lease", folder, "TMPDIR"):
        temporary = folder / f".{_LEASE}"
        temporary.write_text(json.dumps(record))
        temporary.rename(folder / _LEASE)


def note_kernel(folder: Path, release: str) -> None:
    """Note, for ``running``, which kernel the machine of a folder runs."""
    with explain_os_errors("write a lease", folder, "TMPDIR"):
        (folder / _KERNEL).write_text(release)


def collect(scratch: Path | None = None) -> list[str]:
    """End the machines and remove the folders of owners that are gone; gives a line for each.

    ``scratch`` is the folder that data folders were made in.
    """
    removed = []
    for folder in sorted(base_folder().iterdir()):
        owner, machine = _read(folder)
        if owner is None or owner.alive:
            continue
        if machine is not None and machine.kill():
            removed.append(f"ended machine process {machine.pid}, whose owner {owner.pid} is gone")
        removed += _remove(folder)
    for folder in sorted(scratch.iterdir()) if scratch is not None and scratch.is_dir() else ():
        if owner_is_gone(folder):
            removed += _remove(folder)
    return removed


def _remove(folder: Path) -> list[str]:
    shutil.rmtree(folder, ignore_errors=True)
    return [] if folder.exists() else [f"removed {folder}"]


def owner_is_gone(data_folder: Path) -> bool:
    words = data_folder.name.split("-")
    if len(words) < 4 or not (words[0].isdigit() and words[1].isdigit()) or words[2] != _namespace():
        return False
    return not ProcessId(int(words[0]), int(words[1])).alive


def machines() -> list[tuple[Path, ProcessId, ProcessId | None]]:
    """All leases of this user: folder, owner, machine."""
    found = []
    for folder in sorted(base_folder().iterdir()):
        owner, machine = _read(folder)
        if owner is not None:
            found.append((folder, owner, machine))
    return found


def running() -> list[tuple[str, ProcessId, ProcessId]]:
    """This user's machines that are processes of this host: kernel, owner, machine; the oldest first."""
    found = []
    for folder, owner, machine in machines():
        if machine is None or not machine.alive:
            continue
        try:
            found.append(((folder / _KERNEL).read_text(), owner, machine))
        except OSError:
            continue  # a process that is no machine, or one that ends now
    return sorted(found, key=lambda entry: entry[2].start)


def _read(folder: Path) -> tuple[ProcessId | None, ProcessId | None]:
    pid, _, rest = folder.name.partition("-")
    if rest.partition("-")[0] != _namespace():
        return None, None
    try:
        record = json.loads((folder / _LEASE).read_text())
        machine = record["machine"]
        return ProcessId(**record["owner"]), ProcessId(**machine) if machine else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    # The owner died between making the folder and writing its lease: the folder's name says who it was.
    if folder.is_dir() and pid.isdigit() and not _start_time(int(pid)):
        return ProcessId(int(pid), 0), None
    return None, None


def _namespace() -> str:
    """A short name of the PID namespace that this process is in."""
    return f"{Path('/proc/self/ns/pid').stat().st_ino:x}"


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
