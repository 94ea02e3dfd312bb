"""Boots the system of a disk image with this very kernel: what PID 1 of our initial ramdisk does last.

The kernel's command line decides, so that whatever boots our initial ramdisk (``machines.initramfs.image``)
can have it:

``kernelfs.root=WHERE``
    The disk with the root: a device (/dev/vda, /dev/vda1), or serial:NAME for the disk with that serial
    number. Without this parameter the machine keeps our own root, in memory.
``kernelfs.partition=WHICH``
    Its partition, if another one is meant than ``guest.root_disk.find`` chooses: a number, LABEL=…, UUID=…,
    PARTLABEL=… or PARTUUID=…
``kernelfs.agent=off``
    Nothing of ours stays: the memory of the archive is given back, and the system is left to itself.
``init=PATH``
    What to start instead of /sbin/init.

The root is mounted for writing; whoever wants an image unchanged puts an overlay on top of it. A tmpfs on
lib/modules of that root holds the modules of this kernel that the archive has, so that no kernel need be
installed in the image. Our agent is forked off before the image's init starts; see ``guest.image_agent``.

If anything fails, a line on the console says it after ``FAILED``, and the machine is switched off.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from pytest_kernelfs.guest import image_units, root_disk, syscalls

# Where the archive is found in the image's root: below /run, which no init mounts once more.
PLACE = "/run/kernelfs-agent"
FAILED = "cannot boot the image: "
NAME = "kernelfs-init"
"""What PID 1 is called until it has become the image's init."""
_ROOT = "/sysroot"
_INITS = ("/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/etc/init", "/bin/init")
# Of a btrfs whose root is no init's: where Fedora, openSUSE, Debian and Ubuntu have theirs.
_SUBVOLUMES = ("root", "@", "@rootfs")
_COMMAND_LINE = "/proc/cmdline"
_HOW_TO_START_PYTHON = "/etc/kernelfs/python"
_PROGRAM = (
    "import sys; sys.path.insert(0, '{place}/usr/lib/kernelfs'); "
    "from pytest_kernelfs.guest.image_agent import main; main()"
)

_NOSUID, _NODEV, _NOEXEC, _BIND, _MOVE = 2, 4, 8, 4096, 8192
_MOUNTS = (
    ("sysfs", "/sys", "sysfs", _NOSUID | _NODEV | _NOEXEC, ""),
    ("devtmpfs", "/dev", "devtmpfs", _NOSUID, "mode=0755"),
    ("tmpfs", "/run", "tmpfs", _NOSUID | _NODEV, "mode=0755"),
)
_MOVED = ("dev", "proc", "sys", "run")


def wishes() -> dict[str, str]:
    """What the kernel's command line says to us: "root" for kernelfs.root, and so on; /proc is needed."""
    with open(_COMMAND_LINE) as file:
        words = [word.partition("=") for word in file.read().split()]
    found = {key[len("kernelfs.") :]: value for key, _, value in words if key.startswith("kernelfs.")}
    found.update((key, value) for key, _, value in words if key == "init" and value)
    return found


def mount_rest() -> None:
    """Mount what an init expects to find mounted, besides /proc. Raises: OSError."""
    for source, target, fstype, flags, options in _MOUNTS:
        os.makedirs(target, exist_ok=True)
        syscalls.mount(source, target, fstype, flags, options)


def boot(wanted: Mapping[str, str], environment: Mapping[str, str], log: Callable[[str], None]) -> NoReturn:
    """Turn this process, PID 1, into the init of the image; ``environment`` is the kernel's for it."""
    try:
        _boot(wanted, environment, log)
    except root_disk.RootNotFound as error:
        log(f"{FAILED}{error}")
    except OSError as error:
        log(f"{FAILED}{error.strerror} ({error.filename})")
    except BaseException as error:
        log(f"{FAILED}{error!r}")
    syscalls.power_off()


def _boot(wanted: Mapping[str, str], environment: Mapping[str, str], log: Callable[[str], None]) -> NoReturn:
    root = root_disk.find(wanted["root"], wanted.get("partition", ""))
    _mount(root)
    modules = _place_modules()
    archive: _Archive | None = None
    if wanted.get("agent") == "off":
        if modules:
            shutil.copytree(f"/usr/lib/modules/{os.uname().release}", modules)
        _forget_archive()
    else:
        if modules:
            _bind(f"/usr/lib/modules/{os.uname().release}", modules)
        _bind("/", PLACE)
        archive = _Archive()
    _enter()
    init = _find_init(wanted.get("init", ""), root.device)
    log(f"the root of the image is {root.device} ({root.kind}), its init {init}")
    if archive is not None:
        if os.path.basename(os.path.realpath(init)) == "systemd":
            image_units.write(archive.start("usr/bin/sleep", "infinity"))
        _name_self(NAME)
        if not os.fork():
            _become_agent(archive, log)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and so would all that init starts
    os.execve(init, [init, *sys.argv[1:]], {**environment, "TERM": "dumb", "SYSTEMD_COLORS": "0"})


def _mount(root: root_disk.Root) -> None:
    os.mkdir(_ROOT)
    subprocess.call(["modprobe", "-q", root.kind], stdin=subprocess.DEVNULL)
    _mount_as(root, "")
    if root.kind != "btrfs" or any(os.path.lexists(_ROOT + path) for path in _INITS):
        return
    for name in _SUBVOLUMES:
        if os.path.isdir(f"{_ROOT}/{name}/usr"):
            syscalls.umount(_ROOT)
            _mount_as(root, f"subvol={name}")
            return


def _mount_as(root: root_disk.Root, options: str) -> None:
    try:
        syscalls.mount(root.device, _ROOT, root.kind, 0, options)
    except OSError as error:
        why = f"this kernel has no {root.kind}" if error.errno == errno.ENODEV else error.strerror
        raise root_disk.RootNotFound(
            f"the kernel does not mount {root.device} as {root.kind}: {why}"
        ) from None


def _place_modules() -> str:
    """Mount a tmpfs on the image's folder for modules; gives the place for ours, "" if there are none."""
    release = os.uname().release
    if not os.path.isdir(f"/usr/lib/modules/{release}"):
        return ""
    # A symbolic link at /lib may be absolute, and would lead to our own root.
    folder = f"{_ROOT}/usr/lib/modules" if os.path.islink(f"{_ROOT}/lib") else f"{_ROOT}/lib/modules"
    os.makedirs(folder, exist_ok=True)
    syscalls.mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, "mode=0755")
    return f"{folder}/{release}"


def _bind(source: str, target: str) -> None:
    os.mkdir(target)
    syscalls.mount(source, target, "", _BIND)


class _Archive:
    """How to start our Python, and other programs of ours, with the archive at PLACE instead of the root.

    The libraries are named to the loader alone, so that commands of the image get those of the image.
    """

    def __init__(self) -> None:
        with open(_HOW_TO_START_PYTHON) as file:
            self._loader, self._program, home, folders = file.read().splitlines()
        self._libraries = ":".join(f"{PLACE}/{folder}" for folder in folders.split(":"))
        self.environment = {"PYTHONHOME": f"{PLACE}/{home}"}

    def start_python(self, program: str) -> list[str]:
        """The words that have our Python run a text."""
        return self.start(self._program, "-sSB", "-c", program)

    def start(self, program: str, *arguments: str) -> list[str]:
        """The words that start a program of the archive."""
        loader = [f"{PLACE}/{self._loader}", "--library-path", self._libraries]
        return [*loader, f"{PLACE}/{program}", *arguments]


def _forget_archive() -> None:
    """Remove our own root, and so its memory; this process has all it still needs."""
    for name in os.listdir("/"):
        if name not in (*_MOVED, _ROOT[1:]):
            if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
                shutil.rmtree(f"/{name}", ignore_errors=True)
            else:
                os.unlink(f"/{name}")


def _enter() -> None:
    """Make the image's root that of this process, and of the kernel's own, as switch_root(8) does."""
    for name in _MOVED:
        os.makedirs(f"{_ROOT}/{name}", exist_ok=True)
        syscalls.mount(f"/{name}", f"{_ROOT}/{name}", "", _MOVE)
    os.chdir(_ROOT)
    syscalls.mount(_ROOT, "/", "", _MOVE)
    os.chroot(".")
    os.chdir("/")


def _find_init(named: str, device: str) -> str:
    tried = [named] if named else _INITS
    for path in tried:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise root_disk.RootNotFound(f"the root on {device} has no init: there is no program {', '.join(tried)}")


def _name_self(name: str) -> None:
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def _become_agent(archive: _Archive, log: Callable[[str], None]) -> NoReturn:
    """Start our agent in this process. The "@" has systemd spare it to the very end of a shutdown."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        words = archive.start_python(_PROGRAM.format(place=PLACE))
        os.execve(words[0], ["@kernelfs", *words[1:]], archive.environment)
    except BaseException as error:
        log(f"{FAILED}our agent does not start: {error!r}")
    finally:
        os._exit(1)
