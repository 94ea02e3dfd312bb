"""Machines that a fixture prepares: those that it has not saved go with it, and give back their room."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from pytest_kernelfs.machines.vm import VM

_MADE: ContextVar[list[VM] | None] = ContextVar("by the fixture that is being set up", default=None)


def note(vm: VM) -> None:
    """Be told of a machine that was started to be prepared."""
    made = _MADE.get()
    if made is not None:
        made.append(vm)


@final
class SetUp:
    """The set-up of a fixture, from now on until it is ``over``."""

    def __init__(self, at_fixtures_end: Callable[[Callable[[], None]], object]) -> None:
        """``at_fixtures_end`` takes what is to be called when the fixture is taken down."""
        self._made: list[VM] = []
        self._token = _MADE.set(self._made)
        at_fixtures_end(self._end)

    def over(self, *, failed: bool) -> None:
        """What a fixture made whose set-up failed is in nobody's hands any more: that ends at once."""
        _MADE.reset(self._token)
        if failed:
            self._end()

    def _end(self) -> None:
        while self._made:
            vm = self._made.pop()
            if vm.saved is None:
                vm.machine.destroy()
