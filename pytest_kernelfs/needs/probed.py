"""Needs that a running machine settles, once for each kernel: the answers are kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from pytest_kernelfs.cache import Cache, touch
from pytest_kernelfs.errors import GuestCommandError, InfrastructureError, KernelfsError
from pytest_kernelfs.guest import needs as guest
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.initramfs.userland import guest_code_digest
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.needs.need import Need
from pytest_kernelfs.shortage import Shortage

if TYPE_CHECKING:
    from pytest_kernelfs.machines.machine import MachineSpec, Provider

KIND = "needs"
# What a need turned out to be: why it is not met, "" if it is, or what went wrong in finding out.
Answer = str | KernelfsError


@final
class Probes:
    """Asks machines of ``provider``; ``make_room`` is called before one is started."""

    def __init__(self, cache: Cache, provider: Callable[[], Provider], make_room: Callable[[], None]) -> None:
        self._cache = cache
        self._provider = provider
        self._make_room = make_room
        self._answers: dict[tuple[str, str], Answer] = {}
        self._read: set[str] = set()

    def answer(self, kernel: Kernel, need: Need, boot_parameters: str) -> Answer | None:
        """What is known already of a machine that is booted so; None if nothing is."""
        key = self._key(kernel, need, boot_parameters)
        if key not in self._read:
            self._read.add(key)
            self._learn(key, self._load(key))
        return self._answers.get((key, str(need)))

    def ask(self, kernel: Kernel, spec: MachineSpec, wanted: Iterable[tuple[Need, str]]) -> None:
        """Settle needs that are not known yet, each for the boot parameters beside it.

        A machine of the size of ``spec`` does that, and ends with it. What goes wrong becomes the
        answer, for this run only.

        Raises: Shortage, which is over for the next that asks.
        """
        groups: dict[tuple[str, str], set[Need]] = {}
        for need, parameters in wanted:
            if self.answer(kernel, need, parameters) is None:
                place = (self._key(kernel, need, parameters), parameters if need.depends_on_boot else "")
                groups.setdefault(place, set()).add(need)
        for (key, parameters), group in groups.items():
            try:
                self._ask(key, kernel, replace(spec, boot_parameters=parameters), group)
            except Shortage:
                raise
            except KernelfsError as error:
                for need in group:
                    self._answers.setdefault((key, str(need)), error)

    def _ask(self, key: str, kernel: Kernel, spec: MachineSpec, needs: set[Need]) -> None:
        self._make_room()
        with self._cache.lock(KIND, key):
            known = self._load(key)  # another worker may have asked meanwhile
            self._learn(key, known)
            left = sorted((need for need in needs if str(need) not in known), key=_order)
            while left:
                self._ask_machine(key, VM(self._provider().start(kernel, spec)), left, known)
                self._save(key, known)

    def _ask_machine(self, key: str, vm: VM, left: list[Need], known: dict[str, str]) -> None:
        """Settle what is left; a need that the machine does not survive leaves the rest to another."""
        try:
            while left:
                need = left.pop(0)
                try:
                    self._probe(vm, key, need, known)
                except KernelfsError as error:
                    self._answers[key, str(need)] = error
                    return
        finally:
            vm.machine.destroy()

    def _probe(self, vm: VM, key: str, need: Need, known: dict[str, str]) -> None:
        text = str(need)
        state, reason = _settle(vm, need)
        told = f"kernel {vm.kernel.version} {reason}" if reason else ""
        if state == guest.UNCLEAR:
            self._answers[key, text] = InfrastructureError(f"{text} could be settled neither way: {told}")
        else:
            self._answers[key, text] = known[text] = told

    def _learn(self, key: str, known: dict[str, str]) -> None:
        self._answers.update(((key, text), told) for text, told in known.items())

    def _key(self, kernel: Kernel, need: Need, boot_parameters: str) -> str:
        """Names the file of what is known; the code in it, because better code may give other answers."""
        parameters = boot_parameters if need.depends_on_boot else ""
        userland = self._provider().userland() or ""
        text = f"{kernel.checksum} {guest_code_digest()} {userland} {parameters}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _load(self, key: str) -> dict[str, str]:
        """What earlier runs found out; nothing of machines whose programs may have changed."""
        if self._provider().userland() is None:
            return {}
        path = self._path(key)
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        touch(path)
        return {str(text): str(told) for text, told in known.items()} if isinstance(known, dict) else {}

    def _save(self, key: str, known: dict[str, str]) -> None:
        if self._provider().userland() is not None:
            self._cache.write_text(self._path(key), json.dumps(known, indent=1, sort_keys=True))

    def _path(self, key: str) -> Path:
        return self._cache.path(KIND, f"{key}.json")


def _settle(vm: VM, need: Need) -> tuple[str, str]:
    try:
        state, reason = vm.guest(guest.settle, need.kind, need.value)
    except GuestCommandError as error:
        return guest.UNCLEAR, f"failed when it was tried: {error}"
    if state == guest.UNMET and need.kind == "filesystem":
        try:
            vm.modprobe(_module_of(vm.kernel, need.value))
        except GuestCommandError as error:
            return guest.UNMET, f"{reason}: {error}"
        state, reason = vm.guest(guest.settle, need.kind, need.value)
    return str(state), str(reason)


def _module_of(kernel: Kernel, filesystem: str) -> str:
    """The module that brings a file system: iso9660 is in isofs."""
    aliases = kernel.modules / "modules.alias" if kernel.modules else None
    if aliases is not None and aliases.is_file():
        for line in aliases.read_text().splitlines():
            words = line.split()
            if words[:2] == ["alias", f"fs-{filesystem}"]:
                return words[2]
    return filesystem


def _order(need: Need) -> tuple[bool, str]:
    """Controllers of cgroup v1 last: see ``guest.needs.settle``."""
    return need.value.startswith("v1:"), str(need)
