"""cgroups: limits, processes, events and pressure, in one shape for version 1 and version 2."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import cgroup_processes, cgroups, dying, psi
from pytest_kernelfs.machines.vm import CommandResult
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.cgroup_dying import DyingCgroups, make_dying
from pytest_kernelfs.resources.cgroup_files import NO_LIMIT, Device, limit_writes, parse
from pytest_kernelfs.resources.cgroup_process import CgroupProcess
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size

IoLimits = Mapping[Device | str, Mapping[str, Size]]
CpuLimit = float | str | tuple[int, int]

# What removing a cgroup may take: what is in it is killed first.
_PATIENCE_S = 10.0
_GRACE_S = 30.0


@final
class Cgroup:
    """A cgroup: ``path`` is its folder, in version 1 the one in the hierarchy of its first controller.

    ``version`` is 1 or 2; ``controllers`` are those that it was made with.
    """

    def __init__(
        self, resources: Resources, version: int, places: dict[str, str], controllers: Sequence[str]
    ):
        """``places`` maps controllers to folders: in version 2 only "" to the one folder that there is."""
        self.resources = resources
        self.version = version
        self.places = places
        self.controllers = tuple(controllers)

    def __repr__(self) -> str:
        return f"<cgroup v{self.version} {self.path} {','.join(self.controllers) or 'no controllers'}>"

    @property
    def path(self) -> str:
        """Its folder; in version 1 that of its first controller."""
        return self.folders[0]

    @property
    def folders(self) -> list[str]:
        """Its folders: one in each hierarchy, so one alone in version 2."""
        return list(self.places.values())

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    def file(self, name: str) -> str:
        """The path of one of its files, whether it is there or not: ``file("memory.stat")``."""
        if not name or "/" in name:
            raise UsageError(f"{name!r} is no name of a file of a cgroup, such as 'memory.stat'")
        controller = name.partition(".")[0]
        return f"{self.places.get(controller, self.path)}/{name}"

    def create(
        self,
        name: str,
        *,
        controllers: Sequence[str] | None = None,
        move_processes: bool = False,
        memory_max: Size | None = None,
        memory_swap_max: Size | None = None,
        cpu_max: CpuLimit | None = None,
        io_max: IoLimits | None = None,
        pids_max: int | str | None = None,
    ) -> Cgroup:
        """Make a cgroup within this one; it goes with it.

        It has the same controllers, or those named, and those of its limits; see ``CgroupFactory`` for the
        limits. Version 2 demands that a cgroup with such children holds no processes itself;
        ``move_processes`` moves those that it has into the child first.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        if not name or "/" in name or name.startswith("."):
            raise UsageError(f"{name!r} is no name for a cgroup: one part of a path, such as 'child'")
        writes = limit_writes(self.version, memory_max, memory_swap_max, cpu_max, io_max, pids_max)
        wanted = list(
            controllers_of(self.version, self.controllers if controllers is None else controllers, writes)
        )
        if self.version == 1:
            missing = set(wanted) - set(self.places)
            if missing:
                raise UsageError(
                    f"{self!r} is not in the hierarchy of {', '.join(sorted(missing))}; in version 1, name "
                    "that controller when the outermost cgroup is made"
                )
        places = {key: f"{folder}/{name}" for key, folder in self.places.items()}
        child = Cgroup(self.resources, self.version, places, wanted)
        child.make(writes, move_processes)
        return child

    def make(self, writes: Sequence[tuple[str, str, str]], adopt: bool = False) -> None:
        """Make its folders and set its limits; for what makes cgroups."""
        vm = self.resources.vm
        vm.guest(cgroups.make, self.version, self.folders, list(self.controllers), adopt)
        self._write(writes)

    def limit(
        self,
        *,
        memory_max: Size | None = None,
        memory_swap_max: Size | None = None,
        cpu_max: CpuLimit | None = None,
        io_max: IoLimits | None = None,
        pids_max: int | str | None = None,
    ) -> None:
        """Change limits, see ``CgroupFactory``; None leaves one as it is, "max" lifts it.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        self._write(limit_writes(self.version, memory_max, memory_swap_max, cpu_max, io_max, pids_max))

    def _write(self, writes: Sequence[tuple[str, str, str]]) -> None:
        if writes:
            paths = [[self.file(name), text, device] for name, text, device in writes]
            self.resources.vm.guest(cgroups.write_all, paths)

    def write(self, name: str, value: str | int | None) -> None:
        """Write one of its files as the kernel wants it; None is "max". Raises: GuestCommandError."""
        self._write([(name, NO_LIMIT if value is None else str(value), "")])

    def read(self, name: str) -> Any:
        """One of its files as a value.

        A number is an int, "max" is None; ``cgroup.procs`` is a list of int; ``memory.stat`` and all that
        has a name and a value in each line is a dict; ``io.stat`` and the like are dicts of dicts.

        Raises: GuestCommandError that says whether the kernel or the cgroup lacks it.
        """
        return parse(name, self.read_text(name))

    def read_text(self, name: str) -> str:
        """One of its files as it is. Raises: GuestCommandError."""
        return str(self.resources.vm.guest(cgroups.read, self.file(name)))

    def run(self, command: str | Sequence[str], **options: Any) -> CommandResult:
        """``vm.run`` within it, with the same options: the command is in it before it begins.

        Raises: as ``vm.run``; GuestCommandError if no process may enter.
        """
        return self.resources.vm.run(command, cgroup=self, **options)

    def start(
        self, command: str | Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> CgroupProcess:
        """Start a command within it and leave it running, until the test is over at the latest.

        Raises: GuestCommandError.
        """
        return CgroupProcess(self.resources, self.folders, command, cwd, env)

    def add(self, pid: int) -> None:
        """Move a process into it. Raises: UsageError; GuestCommandError with the kernel's reason."""
        if type(pid) is not int or pid < 1:
            raise UsageError(f"cgroup.add: {pid!r} is no number of a process")
        self.resources.vm.guest(cgroup_processes.add, self.folders, pid)

    def processes(self, *, below: bool = False) -> list[int]:
        """The processes in it, with ``below`` also those of the cgroups within it."""
        return list(self.resources.vm.guest(cgroup_processes.all_pids, self.folders, below))

    def freeze(self, *, timeout: float = 10.0) -> None:
        """Stop all that is in it and below; returns when it has stopped. Raises: GuestCommandError."""
        self._wait_for(cgroup_processes.freeze, True, timeout)

    def thaw(self, *, timeout: float = 10.0) -> None:
        """Let what was frozen go on. Raises: GuestCommandError."""
        self._wait_for(cgroup_processes.freeze, False, timeout)

    def kill(self, *, timeout: float = 10.0) -> int:
        """Kill all that is in it and below, and wait for its end; gives how many processes that were.

        With cgroup.kill where the kernel has it (5.14), else frozen, killed and thawed until none is left.
        Raises: GuestCommandError, naming what SIGKILL does not end.
        """
        return int(self._wait_for(cgroup_processes.kill, timeout))

    def wait_until_empty(self, timeout: float = 10.0) -> float:
        """Wait until no process is in it and below; gives the seconds. Raises: GuestCommandError."""
        return float(self._wait_for(cgroup_processes.wait_until_empty, timeout))

    def _wait_for(self, function: Any, *args: Any) -> Any:
        """``args`` end with the seconds that the guest waits."""
        return self.resources.vm.guest(function, self.folders, *args, timeout=args[-1] + _GRACE_S)

    def events(self) -> dict[str, dict[str, int]]:
        """What has happened to it, by controller: ``events()["memory"]["oom_kill"]``.

        Version 2: the content of memory.events, pids.events and cgroup.events, as far as it has them.
        Version 1: for memory ``oom_kill``, ``under_oom`` and ``max`` (how often the limit was hit), for pids
        ``max``.
        """
        names = ["memory.events", "pids.events", "cgroup.events", "memory.oom_control", "memory.failcnt"]
        texts = self.resources.vm.guest(cgroups.read_some, self.folders, names)
        found: dict[str, dict[str, int]] = {}
        for name, text in texts.items():
            value = parse(name, text)
            happened = {"max": value} if name == "memory.failcnt" else value
            found.setdefault(name.partition(".")[0], {}).update(happened)
        return found

    def pressure(self, kind: str) -> dict[str, dict[str, float]]:
        """How much its processes waited for "memory", "cpu" or "io".

        "some" and "full" -> ``avg10``, ``avg60``, ``avg300`` (percent of the last seconds) and ``total``
        (seconds since it was made).

        Raises: UsageError; GuestCommandError if the kernel keeps no such account.
        """
        if kind not in psi.RESOURCES:
            raise UsageError(f"pressure: {kind!r} is none of {', '.join(psi.RESOURCES)}")
        if self.version == 1:
            raise GuestCommandError(
                "cgroups of version 1 keep no account of pressure; "
                f"/proc/pressure/{kind} is that of the whole machine"
            )
        found: dict[str, dict[str, float]] = self.resources.vm.guest(
            psi.read, kind, self.file(f"{kind}.pressure")
        )
        return found

    def make_dying(
        self, number: int, *, kind: str = "tmpfs", on: Mount | None = None, size: Size = "64K"
    ) -> DyingCgroups:
        """Make cgroups within this one, pin each with something, and remove them all.

        ``kind`` is what pins: "tmpfs" or "page cache", files of ``size`` bytes, the latter on the file system
        ``on``; "dentry", 32 empty files each, on ``on``; "zombie", a process that ended and is not waited
        for. Gives how many were made and how many really are dying, which the kernel decides.

        Raises: UsageError; GuestCommandError.
        """
        return make_dying(self, number, kind, on, size)

    def count_dying(self) -> int:
        """How many removed cgroups the kernel keeps: of this one; in version 1 of its whole hierarchy."""
        return int(self.resources.vm.guest(dying.count, self.version, self.places.get("memory", self.path)))

    def remove(self) -> None:
        """Kill what is left in it and below, and remove it; one that is gone already is no error.

        Raises: GuestCommandError, naming what keeps it busy.
        """
        done = self.resources.vm.guest(
            cgroups.remove, self.folders, _PATIENCE_S, timeout=2 * _PATIENCE_S + _GRACE_S
        )
        if done["retries"] and self.resources.record is not None:
            self.resources.record(
                Measurement.of(f"rmdir retries of {self.path}", "retries", [done["retries"]])
            )


class CgroupFactory:
    """Makes cgroups: the ``cgroup_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._claimed: dict[str, str | None] = {}
        self._root = ""
        resources.on_power_cut(self._forget)

    def __call__(
        self,
        *,
        version: int = 2,
        controllers: Sequence[str] = (),
        memory_max: Size | None = None,
        memory_swap_max: Size | None = None,
        cpu_max: CpuLimit | None = None,
        io_max: IoLimits | None = None,
        pids_max: int | str | None = None,
    ) -> Cgroup:
        """Make a cgroup with ``controllers`` ("memory", "cpu", "io", "pids" …) and those of its limits.

        ``memory_max`` and ``memory_swap_max`` are bytes, ``cpu_max`` a number of processors (0.5) or (quota,
        period) in microseconds, ``io_max`` maps disks to limits per second (``{disk: {"wbps": "1M", "riops":
        100}}``), ``pids_max`` a number of processes. "max" is no limit. In version 1, where "io" is called
        blkio, a hierarchy is mounted for each controller and for the freezer, until the test is over.

        Raises: UsageError; GuestCommandError that says what the kernel has instead of a controller.
        """
        if version not in (1, 2):
            raise UsageError(f"cgroup_factory: version is 1 or 2, not {version!r}")
        writes = limit_writes(version, memory_max, memory_swap_max, cpu_max, io_max, pids_max)
        wanted = controllers_of(version, controllers, writes)
        if version == 1 and not wanted:
            raise UsageError(
                "cgroup_factory: a cgroup of version 1 lies in the hierarchies of its controllers; "
                "name one, as in controllers=['memory'], or a limit"
            )
        name = self._resources.name("cgroup")
        places = self._places_1(wanted, name) if version == 1 else {"": f"{self._root_2()}/{name}"}
        made = Cgroup(self._resources, version, places, wanted)
        self._resources.on_teardown(f"cgroup {made.path}", made.remove)
        made.make(writes)
        return made

    def _forget(self) -> None:
        self._claimed.clear()
        self._root = ""

    def _root_2(self) -> str:
        if not self._root:
            vm = self._resources.vm
            self._root = vm.guest(cgroups.root)
            before = vm.guest(cgroups.enabled)
            self._resources.on_teardown(
                "controllers of cgroup version 2", lambda: vm.guest(cgroups.restore, before)
            )
        return self._root

    def _places_1(self, controllers: Sequence[str], name: str) -> dict[str, str]:
        # To be frozen, and killed while it is, a version 1 cgroup needs the freezer too.
        folders = {controller: self._claim(controller, needed=True) for controller in controllers}
        folders.setdefault("freezer", self._claim("freezer", needed=False))
        return {controller: f"{folder}/{name}" for controller, folder in folders.items() if folder}

    def _claim(self, controller: str, needed: bool) -> str | None:
        if self._claimed.get(controller) is None:
            vm = self._resources.vm
            folder, mounted = vm.guest(cgroups.claim, controller, needed)
            self._claimed[controller] = folder
            if mounted:
                self._resources.on_teardown(
                    f"cgroup version 1 hierarchy of {controller}",
                    lambda: self._release(controller, folder),
                )
        return self._claimed[controller]

    def _release(self, controller: str, folder: str) -> None:
        vm = self._resources.vm
        if not vm.guest(cgroups.release, controller, folder):
            # The kernel keeps it for the sake of a dying cgroup; the next test could not have the controller.
            vm.machine.spoiled = True
        self._claimed.pop(controller, None)


def controllers_of(
    version: int, named: Sequence[str], writes: Sequence[tuple[str, str, str]]
) -> tuple[str, ...]:
    """The controllers that were named and those of the limits, each once, as that version calls them."""
    if isinstance(named, str):
        raise UsageError(f"controllers is a list of names, such as ['memory'], not {named!r}")
    needed = [*named, *(name.partition(".")[0] for name, _, _ in writes)]
    other = {"io": "blkio"} if version == 1 else {"blkio": "io"}
    return tuple(dict.fromkeys(other.get(name, name) for name in needed))
