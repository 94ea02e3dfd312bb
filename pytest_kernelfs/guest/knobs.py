"""The kernel's settings: sysctls, module parameters, dropping caches."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

from pytest_kernelfs.guest import attributes, journal
from pytest_kernelfs.guest.dispatch import GuestError

_SYSCTLS = "/proc/sys"
_MODULES = "/sys/module"
# Of each pair one is in force: to write it sets the other to zero.
_PAIRS = (
    ("vm.dirty_bytes", "vm.dirty_ratio"),
    ("vm.dirty_background_bytes", "vm.dirty_background_ratio"),
    ("vm.overcommit_kbytes", "vm.overcommit_ratio"),
)
_PARTNERS = dict([*_PAIRS, *((second, first) for first, second in _PAIRS)])
# To write these does something; there is no value to go back to.
_TRIGGERS = ("vm.drop_caches", "vm.compact_memory", "vm.stat_refresh", "net.ipv4.route.flush")
# What is not there because the kernel was built, or is, without it.
_NEEDED = (
    ("kernel.hung_task_", "the kernel needs CONFIG_DETECT_HUNG_TASK=y"),
    ("kernel.sched_schedstats", "the kernel needs CONFIG_SCHEDSTATS=y"),
    ("kernel.ftrace_", "the kernel needs CONFIG_FTRACE=y"),
    ("fs.xfs.", "the module xfs must be loaded"),
    ("fs.quota.", "the kernel needs CONFIG_QUOTA=y"),
)


def read_sysctl(name: str) -> str:
    """The value of "vm.swappiness". Raises: GuestError."""
    try:
        return _read(_sysctl_path(name))
    except FileNotFoundError:
        _no_such_sysctl(name)
    except OSError as error:
        raise GuestError(f"sysctl {name} cannot be read: {_reason(error)}") from None


def write_sysctls(changes: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Write all, or none: when one is refused, those before it are put back.

    Gives, latest first, (group, name, value) to write to have things as they were: knobs of a pair are one
    group, whose value is that of the one that was in force. Raises: GuestError with the kernel's errno.
    """
    undo: list[tuple[str, str, str]] = []
    for name, _ in changes:
        if not os.path.exists(_sysctl_path(name)):
            _no_such_sysctl(name)
    for name, value in changes:
        before = _in_force(name)
        for was in before:
            journal.note("sysctl", *was)
        try:
            attributes.write(_sysctl_path(name), value)
        except OSError as error:
            for _, earlier, old in undo:
                attributes.write(_sysctl_path(earlier), old)
            raise GuestError(f"sysctl {name} = {value!r} was refused: {_reason(error)}") from None
        undo[:0] = before
    return undo


def restore_sysctls(values: list[tuple[str, str]]) -> None:
    """Write what ``write_sysctls`` gave; a knob that went with its module is passed over."""
    for name, value in values:
        path = _sysctl_path(name)
        try:
            if os.path.exists(path):
                attributes.write(path, value)
        except OSError as error:
            raise GuestError(f"sysctl {name} could not be set back to {value!r}: {_reason(error)}") from None


def _in_force(name: str) -> list[tuple[str, str, str]]:
    """What to write to have back what ``name`` is now; nothing for what has no value."""
    if name in _TRIGGERS:
        return []
    try:
        value = _read(_sysctl_path(name))
        partner = _PARTNERS.get(name)
        if partner is None:
            return [(name, name, value)]
        other = _read(_sysctl_path(partner))
    except OSError:
        return []
    group = min(name, partner)
    # Both are zero only where a ratio of zero was asked for.
    ratio_of_zero = value == other == "0" and partner.endswith("_ratio")
    return [(group, partner, other) if other != "0" or ratio_of_zero else (group, name, value)]


def _sysctl_path(name: str) -> str:
    # As sysctl(8) has it: with slashes, dots belong to the names, as in net/ipv4/conf/eth0.1/mtu.
    return f"{_SYSCTLS}/{name if '/' in name else name.replace('.', '/')}"


def _no_such_sysctl(name: str) -> NoReturn:
    known = [
        os.path.relpath(os.path.join(folder, file), _SYSCTLS).replace("/", ".")
        for folder, _, files in os.walk(_SYSCTLS)
        for file in files
    ]
    needed = [f"; {needs}" for prefix, needs in _NEEDED if name.startswith(prefix)]
    raise GuestError(f"this kernel has no sysctl {name}{_alike(name, known)}{''.join(needed)}")


def drop_caches(what: int) -> None:
    """1: the page cache, 2: dentries and inodes, 3: both. Dirty pages stay."""
    attributes.write(f"{_SYSCTLS}/vm/drop_caches", str(what))


def read_parameter(module: str, name: str) -> str:
    """A module's parameter. Raises: GuestError, saying whether the module or the parameter is missing."""
    try:
        return _read(_parameter_path(module, name))
    except OSError as error:
        raise GuestError(f"the parameter {name} of {module} cannot be read: {_reason(error)}") from None


def write_parameter(module: str, name: str, value: str) -> str:
    """Set a module's parameter; gives what it was. Raises: GuestError with the kernel's errno."""
    before = read_parameter(module, name)
    journal.note("parameter", module, name, before)
    try:
        attributes.write(_parameter_path(module, name), value)
    except OSError as error:
        hint = (
            f"; it can be given only while the module is loaded: vm.modprobe({module!r}, {name}=…)"
            if error.errno in (errno.EACCES, errno.EPERM)
            else ""
        )
        raise GuestError(
            f"the parameter {name} of {module} = {value!r} was refused: {_reason(error)}{hint}"
        ) from None
    return before


def restore_parameter(module: str, name: str, value: str) -> None:
    """Set it as it was; a module that is no longer there has none."""
    if os.path.exists(f"{_MODULES}/{module}"):
        write_parameter(module, name, value)


def _parameter_path(module: str, name: str) -> str:
    folder = f"{_MODULES}/{module}"
    path = f"{folder}/parameters/{name}"
    if os.path.exists(path):
        return path
    if not os.path.exists(folder):
        raise GuestError(
            f"the module {module} is not loaded, or built into this kernel without any parameter; "
            f"vm.modprobe({module!r}) loads it"
        )
    known = sorted(os.listdir(folder + "/parameters")) if os.path.exists(folder + "/parameters") else []
    shown = f"it has {', '.join(known)}" if known else "it has none"
    raise GuestError(f"the module {module} of this kernel has no parameter {name}; {shown}")


def _alike(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 3, 0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _reason(error: OSError) -> str:
    code = errno.errorcode.get(error.errno or 0, "")
    return f"{error.strerror} ({code})"


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
