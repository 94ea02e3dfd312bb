"""The machine as a test holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from pytest_kernelfs.arguments import check_command, check_environment, check_seconds
from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, UsageError
from pytest_kernelfs.guest import audit, commands, files, kmsg, sharing
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import install, modprobe
from pytest_kernelfs.machines.machine import Machine, Saved
from pytest_kernelfs.machines.shares import guest_path
from pytest_kernelfs.machines.source import self_contained_source

if TYPE_CHECKING:
    from testinfra.host import Host

DEFAULT_TIMEOUT_S = 60.0
POWER_CUT_KEEPS = ("flushed", "written")
# What the channel and a killed command may take on top of a command's own time, on a busy host too.
_GRACE_S = 30.0
_CHUNK = 1 << 20
_RC_NOT_FOUND = 127
_NOT_FOUND = (
    "\n(a program that the machine does not have? vm.install brings one of the host; "
    'kernel_needs("command:…") skips the test where those that machines are given are missing)'
)


# Cuts the power of a machine and gives the one that comes after it: what disks keep, the kernel for it, and
# what to call when all is checked and the power is about to go.
Cutter = Callable[[Machine, str, "str | Kernel | None", Callable[[], None]], Machine]


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest did: ``rc`` is negative for a signal, ``duration`` is in seconds."""

    command: str
    rc: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    duration: float
    stdout: str = field(init=False)
    stderr: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("stdout", "stderr"):
            text = getattr(self, f"{name}_bytes").decode("utf-8", "replace")
            object.__setattr__(self, name, text)

    @property
    def succeeded(self) -> bool:
        return self.rc == 0

    @property
    def failed(self) -> bool:
        return self.rc != 0


@dataclass(frozen=True)
class LogRecord:
    """One record of the kernel's log; ``seconds`` since boot, ``level`` as in syslog (3 is an error)."""

    seq: int
    level: int
    seconds: float
    text: str

    def __str__(self) -> str:
        return f"[{self.seconds:12.6f}] {self.text}"


class InCgroups(Protocol):
    """What a command can be started in."""

    @property
    def folders(self) -> list[str]:
        """The folders of cgroups, one in each hierarchy."""


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A prepared machine that was saved: tests whose ``checkpoint`` fixture gives it get forks of it."""

    saved: Saved
    kept: dict[str, Any]


@final
class VM:
    """A running machine with the kernel under test."""

    kept: dict[str, Any]
    """What the checkpoint kept that this machine is a fork of; empty without one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.saved: Saved | None = None
        self.kept = {}
        self.cutter: Cutter | None = None
        """Does what ``power_cut`` needs of the run; None for a machine whose power is not to be cut."""
        self.before_power_cut: Callable[[], None] | None = None
        """Called while the machine that is about to lose its power still answers."""
        self.after_power_cut: list[Callable[[], None]] = []
        """Called, in order, when another machine has taken the place of one that lost its power."""
        self._wedged = False
        self._host: Host | None = None

    def __repr__(self) -> str:
        return f"<vm {self.kernel.release}{'' if self.usable else ' (gone)'}>"

    @property
    def kernel(self) -> Kernel:
        """The kernel it runs."""
        return self.machine.kernel

    @property
    def usable(self) -> bool:
        """False once it died, or left a call unanswered."""
        return self.machine.alive and not self._wedged

    def is_still(self, machine: Machine) -> bool:
        """Whether that machine can be asked yet: its power was not cut, and it is usable."""
        return self.machine is machine and self.usable

    def give_up(self) -> None:
        """Ask this machine nothing more: it does not answer."""
        self._wedged = True

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        check: bool = False,
        input: str | bytes | None = None,  # noqa: A002  (the name subprocess uses)
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        cgroup: InCgroups | None = None,
    ) -> CommandResult:
        """Run a command in the guest: text through the shell, a list as it is.

        It is in ``cgroup`` before it begins.

        Raises: GuestTimeout after ``timeout`` seconds, when its whole process group has been killed;
        GuestCommandError if ``check`` and it failed; KernelPanic or KernelMisbehaved if the machine died.
        """
        words = check_command("vm.run", command)
        shown = words if isinstance(words, str) else " ".join(words)
        timeout = check_seconds("vm.run: timeout", timeout)
        if timeout < 0:
            raise UsageError(f"vm.run: timeout={timeout:g} is below 0")
        if input is not None and not isinstance(input, (str, bytes)):
            raise UsageError(f"vm.run: input={input!r} is neither text nor bytes")
        stdin = input.encode() if isinstance(input, str) else input
        arguments = [words, timeout, stdin, cwd, check_environment("vm.run", env)]
        if cgroup is not None:
            if not hasattr(cgroup, "folders"):
                raise UsageError(f"vm.run: cgroup={cgroup!r} is no cgroup; give what cgroup_factory made")
            arguments.append(cgroup.folders)
        raw = self.guest(commands.run, *arguments, timeout=timeout + _GRACE_S)
        result = CommandResult(shown, raw["rc"], raw["stdout"], raw["stderr"], raw["duration"])
        if raw["rc"] is None:
            self._wedged = self._wedged or bool(raw["stuck"])
            raise GuestTimeout(_timeout_message(result, timeout, raw["stuck"]))
        if check and result.failed:
            raise GuestCommandError(
                f"the command {shown!r} failed with {result.rc} on kernel {self.kernel.version}:\n"
                f"{(result.stderr or result.stdout).rstrip() or '(it printed nothing)'}"
                f"{_NOT_FOUND if result.rc == _RC_NOT_FOUND else ''}"
            )
        return result

    @property
    def host(self) -> Host:
        """pytest-testinfra's view of this machine: ``vm.host.file("/etc/passwd").mode``.

        It is another one after a power cut.

        Raises: UsageError if pytest-testinfra is not installed.
        """
        if self._host is None:
            try:
                from pytest_kernelfs.machines.testinfra import host_of
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != "testinfra":
                    raise
                raise UsageError(
                    "vm.host: pytest-testinfra is not installed; "
                    "get it with: pip install 'pytest-kernelfs[testinfra]'"
                ) from None
            self._host = host_of(self)
        return self._host

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
        """Run a Python function of the test's own in the guest, and give its value.

        The function's source is sent along with the functions, imports and simple constants it uses from
        its module. Modules that are not the standard library's come from the host, if they are pure Python;
        each is sent once. Arguments and value are plain: None, bool, int, float,
        str, bytes, list, tuple, dict, set.

        Raises: UsageError if it needs what cannot be sent; GuestCommandError with its traceback if it
        raised; GuestTimeout; KernelPanic or KernelMisbehaved if the machine died.
        """
        source = self_contained_source(function)
        return self._watch(
            lambda: self.machine.call_source(source, function.__name__, *args, timeout=timeout)
        )

    def guest(self, function: Callable[..., Any], *args: Any, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
        """Run a function of ``pytest_kernelfs.guest`` in the guest."""
        return self._watch(lambda: self.machine.call(function, *args, timeout=timeout))

    def _watch(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except GuestTimeout:
            self._wedged = True
            raise

    def put(self, source: Path | str | bytes, target: str, *, mode: int | None = None) -> None:
        """Bring a host file (a path) or content (bytes) to the path ``target`` in the guest.

        Raises: UsageError if the host file cannot be read; GuestCommandError.
        """
        if not target.startswith("/"):
            raise UsageError(f"vm.put: the target {target!r} is no absolute path in the guest")
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            if mode is None:
                mode = 0o644 if isinstance(source, bytes) else Path(source).stat().st_mode & 0o7777
        except OSError as error:
            raise UsageError(f"vm.put: cannot read {source!s}: {error.strerror}") from error
        for start in range(0, max(len(data), 1), _CHUNK):
            self.guest(files.put, target, data[start : start + _CHUNK], mode, start > 0)

    def get(self, source: str, target: Path | str | None = None) -> bytes:
        """The content of a guest file, also written to the host path ``target`` if that is given.

        Raises: GuestCommandError if it cannot be read.
        """
        parts: list[bytes] = []
        while not parts or len(parts[-1]) == _CHUNK:
            parts.append(self.guest(files.get, source, sum(len(part) for part in parts), _CHUNK))
        data = b"".join(parts)
        if target is not None:
            Path(target).write_bytes(data)
        return data

    def install(self, binary: Path | str, target: str | None = None) -> str:
        """Bring a program of the host with the shared libraries it needs, or a script; gives its path there.

        It is on the PATH of what runs in the guest, before all that is there already. The guest's own
        libraries are left as they are. A ``binary`` without a slash may be a command on the host's PATH.

        Raises: UsageError if it is no program, is for another processor, or lacks a library on the host;
        GuestCommandError if a script's interpreter is not there, or something else is at ``target``.
        """
        return install.install(self, binary, target)

    def shared(self, path: Path | str) -> str:
        """Where a file or folder of the host is in the guest, that was brought by --kernelfs-share.

        Raises: UsageError if it lies in no folder that is shared.
        """
        return guest_path(Path(path), self.guest(sharing.table))

    def modprobe(self, name: str, **parameters: object) -> None:
        """Load a module with its dependencies; one that the machine was not given is brought from the host.

        Raises: GuestCommandError if this kernel has no such module, or it refuses to load.
        """
        modprobe.load(self, name, parameters)

    def checkpoint(self, **kept: Any) -> Checkpoint:
        """Save this machine for others to start from; it ends with that. See ``Preparation.checkpoint``.

        Raises: UsageError for a machine that the fixture ``prepare`` did not make; InfrastructureError.
        """
        self.saved = self.machine.save()
        return Checkpoint(self.saved, kept)

    def sysrq(self, keys: str, *, timeout: float = 30.0) -> str:
        """Press magic SysRq keys from outside, and give what the kernel printed.

        "w" tells of the tasks in uninterruptible sleep, "l" what each processor does, "t" tells of all tasks.
        The keys are pressed on the serial console, so this works while the machine answers nothing else.

        Raises: GuestTimeout if the kernel takes no key in time; KernelPanic or KernelMisbehaved if it died.
        """
        if not keys.isascii() or not keys.isalnum():
            raise UsageError(f"vm.sysrq: {keys!r} are no sysrq keys; give letters and digits, such as 'w'")
        return self.machine.sysrq(keys, timeout)

    def power_cut(self, *, keep: str = "flushed", kernel: str | Kernel | None = None) -> None:
        """Cut the power, and go on with a machine that has just booted and has the same disks.

        With ``keep="flushed"`` a disk has lost what its write cache held: only what was written before
        the last flush is there. With ``keep="written"`` all that the guest's kernel had written to it is.
        ``kernel`` is a spec as for --kernel, or a Kernel; by default it boots the same.

        This object and the test's disks are good for the new machine (a disk may have another ``path``). All
        else is gone: mounts, loop devices, processes, files in memory.

        Raises: UsageError, with the machine still running, if a disk was not made for this, or for a wrong
        spec; KernelNotFound; InfrastructureError.
        """
        if keep not in POWER_CUT_KEEPS:
            known = ", ".join(map(repr, POWER_CUT_KEEPS))
            raise UsageError(f"vm.power_cut: keep={keep!r} is none of {known}")
        if kernel is not None and not isinstance(kernel, (str, Kernel)):
            raise UsageError(f"vm.power_cut: kernel={kernel!r} is no spec, such as '6.1', and no Kernel")
        if self.cutter is None:
            raise UsageError(
                "vm.power_cut: only the machine of the fixture 'vm' can have its power cut, while its test "
                "runs; a machine that is being prepared is saved, and forks of it can"
            )
        self.machine = self.cutter(self.machine, keep, kernel, self._about_to_lose_power)
        self._wedged = False
        self._host = None
        for tell in self.after_power_cut:
            tell()

    def _about_to_lose_power(self) -> None:
        if self.before_power_cut is not None and self.usable:
            self.before_power_cut()

    def dmesg(self, since: int | None = None) -> list[LogRecord]:
        """The kernel's log from the record number ``since`` on: 0 for all, by default from its start.

        What the kernel printed while it booted lies before that.
        """
        since = self.machine.log_start if since is None else check_record("vm.dmesg", since)
        return [LogRecord(**record) for record in self.guest(kmsg.read, since)]

    def begin_test(self, name: str) -> None:
        """Note that another test begins on this machine: what it logs and leaves behind counts from here.

        A power cut is no news any more to those of the tests before.
        """
        self.after_power_cut.clear()
        self.machine.log_start = int(self.guest(audit.begin, f"kernelfs: {name}"))

    def mark_dmesg(self, text: str) -> int:
        """Write a line into the kernel's log; gives the record number to pass to ``dmesg``."""
        return int(self.guest(kmsg.mark, f"kernelfs: {text}"))


def check_record(what: str, since: int) -> int:
    """The number of a record of the kernel's log. Raises: UsageError for anything else."""
    if type(since) is not int:
        raise UsageError(f"{what}: since={since!r} is no number of a record; vm.mark_dmesg(…) gives one")
    return since


def _timeout_message(result: CommandResult, timeout: float, stuck: str) -> str:
    ending = f"SIGKILL did not end it ({stuck})" if stuck else "its process group was killed"
    printed = (result.stdout + result.stderr).strip()
    shown = f"; it had printed:\n{printed[-2000:]}" if printed else "; it had printed nothing"
    return f"the command {result.command!r} did not end within {timeout:g} s; {ending}{shown}"
