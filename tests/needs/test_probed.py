"""Needs that a machine settles: which machine, how often, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import GuestCommandError, InfrastructureError, KernelPanic
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.needs.need import parse
from pytest_kernelfs.needs.probed import Probes
from pytest_kernelfs.shortage import Shortage
from tests.fake_machine import FakeMachine
from tests.fake_machine import kernel as nowhere

SPEC = MachineSpec(1 << 30, 1)
KERNEL = nowhere()
METACOPY, USERNS, BTRFS, V1, V2 = map(
    parse, ("overlay:metacopy", "overlay:userns", "filesystem:btrfs", "cgroup:v1:memory", "cgroup:memory")
)


class Provider:
    """Starts machines that settle needs as told."""

    def __init__(self, settle: Callable[[str, str], Any]) -> None:
        self.settle = settle
        self.programs: str | None = ""
        self.started: list[tuple[str, str]] = []
        self.machines: list[FakeMachine] = []

    def userland(self) -> str | None:
        return self.programs

    def start(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        self.started.append((kernel.checksum, spec.boot_parameters))
        self.machines.append(FakeMachine(settle=self.settle))
        return self.machines[-1]


@pytest.fixture
def provider() -> Provider:
    return Provider(lambda kind, value: ("unmet", f"has no {value}") if value == "userns" else ("met", ""))


@pytest.fixture
def make(tmp_path: Path, provider: Provider) -> Callable[[], Probes]:
    """Makes what asks, as another run would have it."""
    return lambda: Probes(Cache(tmp_path), lambda: provider, lambda: None)  # type: ignore[arg-type, return-value]


def test_it_is_asked_once_and_remembered(make: Callable[[], Probes], provider: Provider) -> None:
    probes = make()
    assert probes.answer(KERNEL, METACOPY, "") is None
    probes.ask(KERNEL, SPEC, [(METACOPY, ""), (USERNS, "")])
    for known in (probes, make()):
        known.ask(KERNEL, SPEC, [(METACOPY, ""), (USERNS, "")])
        assert known.answer(KERNEL, METACOPY, "") == ""
        assert known.answer(KERNEL, USERNS, "") == "kernel 6.1.176 has no userns"
    assert len(provider.started) == 1
    assert not provider.machines[0].alive


def test_another_kernel_is_another_question(make: Callable[[], Probes], provider: Provider) -> None:
    probes = make()
    probes.ask(KERNEL, SPEC, [(METACOPY, "")])
    assert probes.answer(replace(KERNEL, checksum="b" * 64), METACOPY, "") is None


def test_boot_parameters_count_for_cgroups_alone(make: Callable[[], Probes], provider: Provider) -> None:
    probes, off = make(), "cgroup_disable=memory"
    probes.ask(KERNEL, SPEC, [(METACOPY, ""), (V2, ""), (METACOPY, off)])
    assert probes.answer(KERNEL, METACOPY, off) == ""
    assert probes.answer(KERNEL, V2, off) is None
    probes.ask(KERNEL, SPEC, [(V2, off)])
    assert [parameters for _, parameters in provider.started] == ["", off]


def test_what_another_worker_found_meanwhile_is_not_asked_again(
    make: Callable[[], Probes], provider: Provider
) -> None:
    one, other = make(), make()
    assert one.answer(KERNEL, METACOPY, "") is other.answer(KERNEL, METACOPY, "") is None
    one.ask(KERNEL, SPEC, [(METACOPY, "")])
    other.ask(KERNEL, SPEC, [(METACOPY, "")])
    assert other.answer(KERNEL, METACOPY, "") == ""
    assert len(provider.started) == 1


def test_cgroup_v1_comes_last(make: Callable[[], Probes], provider: Provider) -> None:
    make().ask(KERNEL, SPEC, [(V1, ""), (V2, "")])
    assert provider.machines[0].arguments("settle") == [("cgroup", "memory"), ("cgroup", "v1:memory")]


@pytest.mark.parametrize(
    "answer", [("unclear", "is odd"), GuestCommandError("broke")], ids=["unclear", "raised"]
)
def test_what_told_neither_is_an_error_for_this_run(
    make: Callable[[], Probes], provider: Provider, answer: Any
) -> None:
    def settle(kind: str, value: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    provider.settle = settle
    probes = make()
    probes.ask(KERNEL, SPEC, [(METACOPY, "")])
    assert isinstance(probes.answer(KERNEL, METACOPY, ""), InfrastructureError)
    assert make().answer(KERNEL, METACOPY, "") is None


def test_a_machine_that_dies_of_a_need_leaves_the_others_to_another(
    make: Callable[[], Probes], provider: Provider
) -> None:
    def settle(kind: str, value: str) -> tuple[str, str]:
        if value == "memory":
            raise KernelPanic("kernel panicked")
        return "met", ""

    provider.settle = settle
    probes = make()
    probes.ask(KERNEL, SPEC, [(V1, ""), (V2, ""), (METACOPY, "")])
    assert isinstance(probes.answer(KERNEL, V2, ""), KernelPanic)
    assert probes.answer(KERNEL, V1, "") == probes.answer(KERNEL, METACOPY, "") == ""
    assert [machine.alive for machine in provider.machines] == [False, False]
    assert make().answer(KERNEL, V2, "") is None
    assert make().answer(KERNEL, V1, "") == ""


def test_no_machine_is_an_error_of_all(make: Callable[[], Probes], provider: Provider) -> None:
    def start(kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        raise InfrastructureError("it did not boot")

    vars(provider)["start"] = start
    probes = make()
    probes.ask(KERNEL, SPEC, [(V2, ""), (METACOPY, "")])
    for need in (V2, METACOPY):
        assert isinstance(probes.answer(KERNEL, need, ""), InfrastructureError)


def test_what_the_host_lacked_at_that_moment_is_asked_again(
    make: Callable[[], Probes], provider: Provider
) -> None:
    def start(kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        del vars(provider)["start"]
        raise Shortage("no more files may be opened")

    vars(provider)["start"] = start
    probes = make()
    with pytest.raises(Shortage):
        probes.ask(KERNEL, SPEC, [(METACOPY, "")])
    probes.ask(KERNEL, SPEC, [(METACOPY, "")])
    assert probes.answer(KERNEL, METACOPY, "") == ""


def test_a_damaged_file_is_no_knowledge(
    make: Callable[[], Probes], provider: Provider, tmp_path: Path
) -> None:
    make().ask(KERNEL, SPEC, [(METACOPY, "")])
    (path,) = tmp_path.glob("needs/*.json")
    for damage in ("{", "[]"):
        path.write_text(damage)
        assert make().answer(KERNEL, METACOPY, "") is None


def test_the_module_of_a_file_system_is_brought(
    make: Callable[[], Probes], provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([("unmet", "has no file system iso9660"), ("met", "")])
    provider.settle = lambda kind, value: next(answers)
    (tmp_path / "modules.alias").write_text("# comment\nalias fs-iso9660 isofs\n")
    loaded: list[str] = []
    monkeypatch.setattr(VM, "modprobe", lambda vm, name: loaded.append(name))
    probes, need = make(), parse("filesystem:iso9660")
    kernel = replace(KERNEL, modules=tmp_path)
    start = provider.start

    def with_modules(kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        machine = start(kernel, spec)
        machine.kernel = kernel
        return machine

    monkeypatch.setattr(provider, "start", with_modules)
    probes.ask(kernel, SPEC, [(need, "")])
    assert loaded == ["isofs"]
    assert probes.answer(kernel, need, "") == ""


def test_a_file_system_without_module_is_not_there(
    make: Callable[[], Probes], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(vm: VM, name: str) -> None:
        raise GuestCommandError(f"has no module {name}")

    provider.settle = lambda kind, value: ("unmet", f"has no file system {value}")
    monkeypatch.setattr(VM, "modprobe", refuse)
    probes = make()
    probes.ask(KERNEL, SPEC, [(BTRFS, "")])
    assert probes.answer(KERNEL, BTRFS, "") == "kernel 6.1.176 has no file system btrfs: has no module btrfs"


@pytest.mark.parametrize(("programs", "asked"), [("", 1), ("an image", 1), (None, 2)])
def test_what_may_change_at_any_time_is_asked_in_every_run(
    make: Callable[[], Probes], provider: Provider, programs: str | None, asked: int
) -> None:
    provider.programs = programs
    for run in (make(), make()):
        run.ask(KERNEL, SPEC, [(METACOPY, "")])
        run.ask(KERNEL, SPEC, [(METACOPY, "")])
        assert run.answer(KERNEL, METACOPY, "") == ""
    assert len(provider.started) == asked


def test_machines_with_other_programs_are_asked_anew(make: Callable[[], Probes], provider: Provider) -> None:
    for programs in ("", "an image", "another"):
        provider.programs = programs
        make().ask(KERNEL, SPEC, [(METACOPY, "")])
    assert len(provider.started) == 3
