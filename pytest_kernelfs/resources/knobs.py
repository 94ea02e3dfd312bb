"""Other knobs of the kernel: caches, module parameters, debug messages, the watch for hung tasks."""

from __future__ import annotations

from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import dynamic_debug, knobs
from pytest_kernelfs.probes.cgroups import look_again
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl, SysctlValue, typed

_SWITCHES = {"Y": True, "N": False}


@final
class DropCaches:
    """Empties caches: the ``drop_caches`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def __call__(self, *, pagecache: bool = True, slab: bool = True) -> None:
        """Drop the clean page cache, and dentries and inodes (``slab``). Dirty pages stay: force them first.

        Raises: UsageError if nothing is to be dropped.
        """
        what = (1 if pagecache else 0) | (2 if slab else 0)
        if not what:
            raise UsageError("drop_caches: there is nothing to drop with pagecache=False and slab=False")
        self.resources.vm.guest(knobs.drop_caches, what)
        look_again(self.resources)


@final
class ModuleParameter:
    """Reads and sets parameters of loaded modules: the ``module_parameter`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def __call__(self, module: str, name: str, value: bool | int | str | None = None) -> bool | SysctlValue:
        """The parameter's value: True and False for Y and N, else as a sysctl's.

        With ``value`` it is set first, until the end of the test.

        Raises: GuestCommandError if the module or the parameter is missing, or the kernel refuses the value.
        """
        vm = self.resources.vm
        module = module.replace("-", "_")
        if value is not None:
            text = {True: "Y", False: "N"}[value] if isinstance(value, bool) else str(value)
            self.resources.demand_open(f"parameter {name} of {module}")
            before: str = vm.guest(knobs.write_parameter, module, name, text)
            self.resources.on_teardown(
                f"parameter {name} of {module}",
                lambda: vm.guest(knobs.restore_parameter, module, name, before),
            )
        now: str = vm.guest(knobs.read_parameter, module, name)
        return _SWITCHES.get(now, typed(now))


@final
class DynamicDebug:
    """Switches debug messages of the kernel: the ``dynamic_debug`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def __call__(self, query: str) -> int:
        """Apply a query such as ``"module xfs +p"`` until the test ends; gives how many messages it changed.

        What they print is in the kernel's log, on level 7 (debug).

        Raises: GuestCommandError without CONFIG_DYNAMIC_DEBUG, for a query that is refused, and for one that
        changes nothing.
        """
        vm = self.resources.vm
        self.resources.demand_open(f"dynamic debug {query!r}")
        sites = vm.guest(dynamic_debug.apply, query)
        self.resources.on_teardown(f"dynamic debug {query!r}", lambda: vm.guest(dynamic_debug.restore, sites))
        return len(sites)


@final
class HungTask:
    """Sets how the kernel itself looks for hung tasks: the ``hung_task`` fixture."""

    def __init__(self, sysctl: Sysctl) -> None:
        self._sysctl = sysctl

    def __call__(
        self,
        *,
        timeout: int,
        panic: bool = False,
        warnings: int = 10,
        check_interval: int | None = None,
        all_cpu_backtrace: bool = False,
    ) -> None:
        """Have khungtaskd report tasks that are in state D for ``timeout`` seconds (0: never), until the end.

        It looks every ``check_interval`` seconds, by default every ``timeout``; so a task is reported
        between one and two intervals after the timeout. ``panic`` ends the machine then. It reports
        ``warnings`` times and then no more; -1 is without end.

        Raises: UsageError; GuestCommandError if this kernel was built without CONFIG_DETECT_HUNG_TASK.
        """
        if timeout < 0 or warnings < -1 or (check_interval is not None and check_interval < 0):
            raise UsageError(
                "hung_task: timeout and check_interval are seconds from 0 on, warnings from -1 on"
            )
        self._sysctl.update(
            {
                "kernel.hung_task_check_interval_secs": check_interval or 0,
                "kernel.hung_task_warnings": warnings,
                "kernel.hung_task_panic": panic,
                "kernel.hung_task_all_cpu_backtrace": all_cpu_backtrace,
                "kernel.hung_task_timeout_secs": timeout,
            }
        )
