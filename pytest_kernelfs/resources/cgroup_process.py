"""A process that runs in a cgroup while the test goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from pytest_kernelfs.arguments import check_command, check_environment
from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.guest import cgroup_processes, files
from pytest_kernelfs.machines.vm import CommandResult
from pytest_kernelfs.resources.stack import ROOT, Resources

# The guest counts the time that the machine had, which may have stood still meanwhile.
_GRACE_S = 30.0


@final
class CgroupProcess:
    """A command that was started in a cgroup: ``pid`` is its number, ``command`` what was started."""

    def __init__(
        self,
        resources: Resources,
        folders: list[str],
        command: str | Sequence[str],
        cwd: str | None,
        env: Mapping[str, str] | None,
    ) -> None:
        self.resources = resources
        words = check_command("cgroup.start", command)
        environment = check_environment("cgroup.start", env)
        self.command = words if isinstance(words, str) else " ".join(words)
        self._output = f"{ROOT}/{resources.name('process')}"
        vm = resources.vm
        self.pid = int(vm.guest(cgroup_processes.start, folders, words, self._output, cwd, environment))
        resources.on_teardown(f"process {self.pid}", self._forget)

    def __repr__(self) -> str:
        return f"<process {self.pid} {self.command!r}>"

    @property
    def running(self) -> bool:
        return self._wait(0.0)[0] is None

    def wait(self, timeout: float = 60.0) -> CommandResult:
        """Wait for its end; gives its exit code and what it printed, and as ``duration`` the time waited.

        Raises: GuestTimeout if it runs on; nothing is done to it then.
        """
        rc, seconds = self._wait(timeout)
        if rc is None:
            raise GuestTimeout(
                f"the process {self.command!r} (pid {self.pid}) still runs after {timeout:g} s"
            )
        vm = self.resources.vm
        out, err = (vm.guest(files.get, self._output + end) for end in (".out", ".err"))
        return CommandResult(self.command, int(rc), out, err, seconds)

    def _wait(self, timeout: float) -> tuple[int | None, float]:
        rc, seconds = self.resources.vm.guest(
            cgroup_processes.wait, self.pid, timeout, timeout=timeout + _GRACE_S
        )
        return rc, seconds

    def _forget(self) -> None:
        self.resources.vm.guest(cgroup_processes.forget, self.pid, self._output)
