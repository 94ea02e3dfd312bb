"""Sysctls: read as numbers, set for the length of a test or of a block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import knobs
from pytest_kernelfs.resources.stack import Resources

SysctlValue = int | str | tuple[int, ...]
Settable = int | str | Sequence[int]

_Found = dict[str, tuple[str, str]]
"""What was in force: the name and the value to write, for each group of knobs, in the order of setting."""

_NAME = re.compile(r"[\w.:/@*+-]+", re.ASCII)
_NUMBER = re.compile(r"-?\d+", re.ASCII)


@final
class Sysctl:
    """The sysctls of the machine: the ``sysctl`` fixture. What a test set is set back after it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._before: _Found = {}
        self._blocks: list[_Found] = []
        """What the open blocks of ``changed`` found, the outermost first."""
        resources.on_power_cut(self._forget)

    def __repr__(self) -> str:
        changed = ", ".join(name for name, _ in self._before.values())
        return f"<sysctl {changed or 'unchanged'}>"

    def get(self, name: str) -> SysctlValue:
        """The value of ``"vm.dirty_ratio"``: an int, a tuple of ints if it is several, else text.

        Raises: GuestCommandError for one that this kernel has not, with the names that come close.
        """
        return typed(self.resources.vm.guest(knobs.read_sysctl, _checked(name)))

    def set(self, name: str, value: Settable) -> None:
        """Set one until the end of the test. Raises: GuestCommandError with the kernel's errno."""
        self.update({name: value})

    def update(self, changes: Mapping[str, Settable]) -> None:
        """Set several until the end of the test, in their order: all, or none if one is refused.

        Raises: GuestCommandError with the kernel's errno.
        """
        found = self._write(changes)
        if found and not self._before:
            self.resources.on_teardown("sysctls", self._restore)
        for group, value in found.items():
            # What an open block has set was not the first.
            first = next((block[group] for block in self._blocks if group in block), value)
            self._before.setdefault(group, first)

    @contextmanager
    def changed(self, changes: Mapping[str, Settable]) -> Iterator[None]:
        """Set several for the length of a block. Raises: GuestCommandError with the kernel's errno."""
        vm = self.resources.vm
        machine = vm.machine
        found = self._write(changes)
        self._blocks.append(found)
        try:
            yield
        finally:
            self._blocks = [block for block in self._blocks if block is not found]
            if vm.is_still(machine):
                self._put_back(found)

    def __getitem__(self, name: str) -> SysctlValue:
        return self.get(name)

    def __setitem__(self, name: str, value: Settable) -> None:
        self.set(name, value)

    def _write(self, changes: Mapping[str, Settable]) -> _Found:
        self.resources.demand_open("sysctl")
        if not isinstance(changes, Mapping):
            raise UsageError(f"sysctl: {changes!r} is no mapping of names to values")
        texts = [(_checked(name), as_text(value)) for name, value in changes.items()]
        found: _Found = {}
        for group, name, value in reversed(self.resources.vm.guest(knobs.write_sysctls, texts)):
            found.setdefault(group, (name, value))
        return found

    def _restore(self) -> None:
        before = dict(self._before)
        self._before.clear()
        self._put_back(before)

    def _put_back(self, found: _Found) -> None:
        self.resources.vm.guest(knobs.restore_sysctls, list(found.values())[::-1])

    def _forget(self) -> None:
        self._before.clear()
        self._blocks.clear()


def typed(text: str) -> SysctlValue:
    """ "3000" -> 3000, "4096 87380" -> (4096, 87380), anything else as it is."""
    words = text.split()
    if not words or not all(_NUMBER.fullmatch(word) for word in words):
        return text
    numbers = tuple(map(int, words))
    return numbers[0] if len(numbers) == 1 else numbers


def as_text(value: Settable) -> str:
    """What is written for a value; True is 1. Raises: UsageError."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Sequence) and all(isinstance(number, int) for number in value):
        return " ".join(str(int(number)) for number in value)
    raise UsageError(f"sysctl: {value!r} is no value; give an int, text, or a sequence of ints")


def _checked(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or name.startswith("/"):
        raise UsageError(f"sysctl: {name!r} is no name; write it as in 'vm.dirty_ratio'")
    return name
