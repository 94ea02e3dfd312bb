"""Which test gets which machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines import admission
from pytest_kernelfs.machines.admission import Admission, Slot
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider, Saved
from pytest_kernelfs.machines.pool import MachinePool, Wish
from tests.fake_machine import FakeMachine, kernel

SPEC = MachineSpec(1 << 30, 1)
OLD, NEW = kernel("5.10.262"), kernel("6.1.176")
WISH = Wish(NEW, SPEC)
PATIENCE_S = 120.0


class FakeSaved:
    """Something to fork from."""

    def discard(self) -> None:
        pass


class FakeProvider:
    """Counts what it is asked for; spares may be had or not."""

    name = "fake"

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self.asked: list[str] = []
        self.made: list[FakeMachine] = []

    def _make(self, how: str, kernel: Kernel) -> FakeMachine:
        self.asked.append(how)
        self.made.append(FakeMachine(str(kernel.version)))
        return self.made[-1]

    def start(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        return self._make("start", kernel)

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine | None:
        return self._make("spare", kernel) if self.quick else None

    def fork(self, saved: Saved) -> FakeMachine:
        return self._make("fork", NEW)

    def fork_if_room(self, saved: Saved) -> FakeMachine | None:
        return self._make("spare fork", NEW) if self.quick else None

    def power_cut(
        self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]
    ) -> FakeMachine:
        ready()
        machine.destroy()
        return self._make(f"power_cut {keep}", kernel)

    def collect(self) -> list[str]:
        self.asked.append("collect")
        return []


class Lodger(FakeMachine):
    """A machine that takes room."""

    def __init__(self, version: str, slot: Slot) -> None:
        super().__init__(version)
        self.slot = slot

    def destroy(self) -> None:
        super().destroy()
        self.slot.release()


class Lodging(FakeProvider):
    """There is room for two machines."""

    def __init__(self) -> None:
        super().__init__()
        self.door = Admission(1 << 30, 2, lambda _: None)
        self.alive: list[list[bool]] = []

    def start(self, kernel: Kernel, spec: MachineSpec) -> Lodger:
        self.alive.append([machine.alive for machine in self.made])
        return self._lodge(kernel, self.door.enter(PATIENCE_S))

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> Lodger | None:
        slot = self.door.try_enter()
        return None if slot is None else self._lodge(kernel, slot)

    def _lodge(self, kernel: Kernel, slot: Slot) -> Lodger:
        machine = Lodger(str(kernel.version), slot)
        self.made.append(machine)
        return machine


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Room that no other run waits for, on a host with memory enough and two cores."""
    monkeypatch.setattr(admission, "base_folder", lambda: tmp_path)
    monkeypatch.setattr(admission, "available_memory", lambda: 8 << 30)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def pool(provider: FakeProvider) -> Iterator[MachinePool]:
    pool = MachinePool(cast("Provider", provider))
    yield pool
    pool.close()


def test_the_same_wish_and_scope_get_the_same_machine(pool: MachinePool) -> None:
    assert pool.take(WISH, "module") is pool.take(Wish(NEW, MachineSpec(1 << 30, 1)), "module")


@pytest.mark.parametrize(
    ("wish", "scope"),
    [
        (Wish(OLD, SPEC), "module"),
        (Wish(NEW, MachineSpec(2 << 30, 1)), "module"),
        (Wish(NEW, SPEC, FakeSaved()), "module"),
        (WISH, "another module"),
    ],
    ids=["kernel", "size", "saved", "scope"],
)
def test_another_wish_or_scope_gets_another_machine(
    pool: MachinePool, provider: FakeProvider, wish: Wish, scope: str
) -> None:
    first = pool.take(WISH, "module")
    second = pool.take(wish, scope)
    assert second is not first
    assert [machine.alive for machine in provider.made] == [False, True]


def test_a_machine_that_died_is_replaced(pool: MachinePool, provider: FakeProvider) -> None:
    first = pool.take(WISH, "module")
    provider.made[0].alive = False
    assert pool.take(WISH, "module") is not first


def test_a_saved_machine_is_forked(pool: MachinePool, provider: FakeProvider) -> None:
    pool.take(Wish(NEW, SPEC, FakeSaved()), "test")
    assert provider.asked == ["collect", "fork"]


def test_what_earlier_runs_left_is_swept_once_before_the_first_machine(
    pool: MachinePool, provider: FakeProvider
) -> None:
    for scope in ("one", "two"):
        pool.take(WISH, scope)
    assert provider.asked == ["collect", "start", "start"]


def test_after_a_failed_start_nothing_is_held(
    pool: MachinePool, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> FakeMachine:
        raise InfrastructureError("it did not boot")

    monkeypatch.setattr(provider, "start", fail)
    with pytest.raises(InfrastructureError):
        pool.take(WISH, "module")
    monkeypatch.undo()
    assert pool.take(WISH, "module").usable


@pytest.mark.parametrize(
    ("saved", "how"), [(None, "spare"), (FakeSaved(), "spare fork")], ids=["booted", "saved"]
)
def test_a_spare_that_waits_is_taken(saved: FakeSaved | None, how: str) -> None:
    provider = FakeProvider(quick=True)
    pool = MachinePool(cast("Provider", provider))
    wish = Wish(NEW, SPEC, saved)
    pool.take(wish, "one")
    pool.expect(wish, 1)
    assert pool.take(wish, "two").machine is provider.made[1]
    assert provider.asked[2:] == [how]
    pool.close()
    assert not any(machine.alive for machine in provider.made)


def test_no_spares_are_made_before_the_first_machine_or_on_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = FakeProvider(quick=True)
    pool = MachinePool(cast("Provider", provider))
    pool.expect(WISH, 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    pool.take(WISH, "one")
    pool.expect(WISH, 1)
    pool.close()
    assert "spare" not in provider.asked


def test_a_spare_goes_when_another_run_waits_for_its_room() -> None:
    provider = Lodging()
    pool = MachinePool(cast("Provider", provider))
    pool.take(WISH, "one")
    pool.expect(WISH, 1)
    pool.wait_for_spares()
    other = Admission(1 << 30, 2, lambda _: None)
    assert other.try_enter() is None
    slot = other.enter(PATIENCE_S)
    pool.expect(WISH, 1)
    pool.wait_for_spares()
    assert [machine.alive for machine in provider.made] == [True, False]
    slot.release()
    pool.close()


def test_spares_go_before_another_machine_is_made() -> None:
    provider = Lodging()
    pool = MachinePool(cast("Provider", provider))
    pool.take(WISH, "one")
    pool.expect(WISH, 1)
    pool.wait_for_spares()
    pool.take(Wish(OLD, SPEC), "two")
    assert provider.alive == [[], [False, False]]
    pool.close()


def test_closing_ends_what_was_handed_out(pool: MachinePool, provider: FakeProvider) -> None:
    pool.take(WISH, "module")
    pool.close()
    pool.close()
    assert not provider.made[0].alive


def test_a_spoiled_machine_is_not_shared(pool: MachinePool) -> None:
    vm = pool.take(WISH, "module")
    assert pool.take(WISH, "module") is vm
    cast("FakeMachine", vm.machine).spoiled = True
    assert pool.take(WISH, "module") is not vm
    assert not vm.machine.alive


def test_a_machine_after_a_power_cut_serves_its_test_only(pool: MachinePool, provider: FakeProvider) -> None:
    vm = pool.take(WISH, "module")
    before = vm.machine
    vm.machine = pool.power_cut(before, "flushed", OLD, lambda: provider.asked.append("ready"))
    assert provider.asked[-2:] == ["ready", "power_cut flushed"]
    assert vm.kernel.version == OLD.version
    after = pool.take(WISH, "module")
    assert after is not vm
    assert not vm.machine.alive
