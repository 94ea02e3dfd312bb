"""The machine as a test holds it: commands, calls, files, and when it is used no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, KernelPanic, UsageError
from pytest_kernelfs.machines.vm import VM, LogRecord
from tests.fake_machine import FakeMachine, ran

MIB = 1 << 20


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def vm(machine: FakeMachine) -> VM:
    return VM(machine)


def test_a_command_gives_text_code_and_time(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(3, "käse\n", "no\n")
    result = vm.run("cat file")
    assert (result.rc, result.stdout, result.stderr, result.duration) == (3, "käse\n", "no\n", 0.5)
    assert (result.failed, result.succeeded) == (True, False)


def test_bytes_that_are_no_text_do_not_stand_in_the_way(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = {**ran(), "stdout": b"a\xffb"}
    assert vm.run("cat").stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_all_that_a_command_is_given_reaches_the_guest(vm: VM, machine: FakeMachine) -> None:
    vm.run(("echo", "x"), timeout=5, input="text", cwd="/mnt", env={"A": "1"})
    assert machine.arguments("run") == [(["echo", "x"], 5, b"text", "/mnt", {"A": "1"})]


def test_the_guest_has_time_to_end_a_command_itself(vm: VM, machine: FakeMachine) -> None:
    vm.run("x", timeout=5)
    assert machine.timeouts[0] > 5


def test_a_failure_is_an_error_only_if_it_is_asked_for(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(1, "out", "it broke\n")
    assert vm.run("make").rc == 1
    with pytest.raises(GuestCommandError) as caught:
        vm.run(["make", "all"], check=True)
    assert str(caught.value) == "the command 'make all' failed with 1 on kernel 6.1.176:\nit broke"


@pytest.mark.parametrize(("stdout", "told"), [("only output", "only output"), ("", "(it printed nothing)")])
def test_a_failure_without_a_complaint_tells_what_there_is(
    vm: VM, machine: FakeMachine, stdout: str, told: str
) -> None:
    machine.answers["run"] = ran(1, stdout)
    with pytest.raises(GuestCommandError, match=f"\n{told}".replace("(", r"\(").replace(")", r"\)")):
        vm.run("make", check=True)


def test_a_command_that_was_ended_leaves_the_machine_usable(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(None, "half")
    with pytest.raises(GuestTimeout) as caught:
        vm.run("make", timeout=2)
    assert str(caught.value) == (
        "the command 'make' did not end within 2 s; its process group was killed; it had printed:\nhalf"
    )
    assert vm.usable


def test_a_command_that_cannot_be_ended_spoils_the_machine(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(None, stuck="pid 7 waits in percpu_rwsem_wait")
    with pytest.raises(GuestTimeout, match=r"SIGKILL did not end it \(pid 7 waits in percpu_rwsem_wait\)"):
        vm.run("sync")
    assert not vm.usable


def test_a_call_that_is_not_answered_spoils_the_machine(vm: VM, machine: FakeMachine) -> None:
    machine.answers["sync"] = machine.answers["call_source"] = GuestTimeout("no answer")
    with pytest.raises(GuestTimeout):
        vm.call(number)
    assert not vm.usable
    assert "gone" in repr(vm)


def test_a_panic_goes_up_as_it_is(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = KernelPanic("it panicked")
    with pytest.raises(KernelPanic):
        vm.run("crash")


def number(value: int = 1) -> int:
    return value


def test_a_function_is_sent_as_source(vm: VM, machine: FakeMachine) -> None:
    def execute(source: str, name: str, *args: Any) -> Any:
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        return namespace[name](*args)

    machine.answers["call_source"] = execute
    assert vm.call(number, 42) == 42


def test_a_function_that_cannot_be_sent_is_refused_on_the_host(vm: VM, machine: FakeMachine) -> None:
    with pytest.raises(UsageError):
        vm.call(lambda: 1)
    assert machine.calls == []


def test_content_is_put(vm: VM, machine: FakeMachine) -> None:
    vm.put(b"content", "/etc/file")
    assert machine.arguments("put") == [("/etc/file", b"content", 0o644, False)]


def test_a_host_file_is_put_with_its_mode(vm: VM, machine: FakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o750)
    vm.put(path, "/script")
    vm.put(str(path), "/script", mode=0o700)
    assert [arguments[2] for arguments in machine.arguments("put")] == [0o750, 0o700]


def test_an_empty_file_is_put_too(vm: VM, machine: FakeMachine) -> None:
    vm.put(b"", "/empty")
    assert machine.arguments("put") == [("/empty", b"", 0o644, False)]


def test_a_large_file_is_put_in_parts(vm: VM, machine: FakeMachine) -> None:
    data = bytes(2 * MIB + 5)
    vm.put(data, "/large")
    parts = machine.arguments("put")
    assert [len(part[1]) for part in parts] == [MIB, MIB, 5]
    assert [part[3] for part in parts] == [False, True, True]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (b"x", "relative", "'relative' is no absolute path in the guest"),
        ("/no/such/file", "/x", "cannot read /no/such/file: No such file or directory"),
        ("/", "/x", "cannot read /: Is a directory"),
    ],
)
def test_what_cannot_be_put_is_told(
    vm: VM, machine: FakeMachine, source: str | bytes, target: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        vm.put(source, target)
    assert machine.calls == []


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_a_file_is_got_whole(vm: VM, machine: FakeMachine, tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    machine.answers["get"] = lambda path, offset, length: data[offset : offset + length]
    assert vm.get("/file", tmp_path / "copy") == data
    assert (tmp_path / "copy").read_bytes() == data


def test_the_log_is_read_from_where_the_machine_began(vm: VM, machine: FakeMachine) -> None:
    machine.log_start = 500
    machine.answers["read"] = [{"seq": 501, "level": 3, "seconds": 12.5, "text": "XFS: error"}]
    assert vm.dmesg() == [LogRecord(501, 3, 12.5, "XFS: error")]
    vm.dmesg(0)
    assert machine.arguments("read") == [(500,), (0,)]


def test_a_record_reads_like_dmesg() -> None:
    assert str(LogRecord(1, 6, 12.5, "hello")) == "[   12.500000] hello"


def test_power_is_cut_by_who_made_the_machine(vm: VM, machine: FakeMachine) -> None:
    asked: list[tuple[Any, ...]] = []
    told: list[str] = []
    after = FakeMachine("5.10.262")

    def cut(*args: Any) -> FakeMachine:
        asked.append(args[:-1])
        told.append("checked")
        args[-1]()
        return after

    vm.cutter, vm.before_power_cut = cut, lambda: told.append("before")
    vm.after_power_cut.append(lambda: told.append(f"after on {vm.kernel.version}"))
    vm.power_cut(keep="written", kernel="5.10")
    assert asked == [(machine, "written", "5.10")]
    assert told == ["checked", "before", "after on 5.10.262"]
    assert vm.machine is after


def test_a_machine_that_hangs_is_not_asked_before_its_power_is_cut(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = GuestTimeout("no answer")
    with pytest.raises(GuestTimeout):
        vm.run("hang")

    def cut(*args: Any) -> FakeMachine:
        args[-1]()
        return FakeMachine()

    vm.cutter, vm.before_power_cut = cut, pytest.fail
    vm.power_cut()
    assert vm.usable


def test_a_power_cut_that_is_refused_has_noted_nothing(vm: VM, machine: FakeMachine) -> None:
    def refuse(*_: Any) -> FakeMachine:
        raise UsageError("no record")

    vm.cutter, vm.before_power_cut = refuse, pytest.fail
    with pytest.raises(UsageError, match="no record"):
        vm.power_cut()
    assert vm.is_still(machine)


def test_a_machine_is_the_same_until_its_power_is_cut(vm: VM, machine: FakeMachine) -> None:
    vm.cutter = lambda *_: FakeMachine()
    assert vm.is_still(machine)
    vm.power_cut()
    assert not vm.is_still(machine)
    assert vm.is_still(vm.machine)
    vm.machine.destroy()
    assert not vm.is_still(vm.machine)


def test_tests_before_on_a_machine_hear_of_no_power_cut(vm: VM) -> None:
    vm.after_power_cut.append(pytest.fail)
    vm.begin_test("the next")
    vm.cutter = lambda *_: FakeMachine()
    vm.power_cut()


def test_a_power_cut_that_makes_no_sense_is_refused(vm: VM) -> None:
    with pytest.raises(UsageError, match="keep='all' is none of 'flushed', 'written'"):
        vm.power_cut(keep="all")
    with pytest.raises(UsageError, match="only the machine of the fixture 'vm'"):
        vm.power_cut()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda vm: vm.run(["sleep", 1]), r"vm.run: 1 \(int\) is no text"),
        (lambda vm: vm.run([]), r"vm.run: \[\] is no command"),
        (lambda vm: vm.run("true", timeout="5s"), "timeout: '5s' is no number of seconds"),
        (lambda vm: vm.run("cat", input=5), "input=5 is neither text nor bytes"),
        (lambda vm: vm.run("true", env={"A": 1}), "env has 'A': 1; names and values are texts"),
        (lambda vm: vm.run("true", cgroup="/sys/fs/cgroup/a"), "'/sys/fs/cgroup/a' is no cgroup"),
        (lambda vm: vm.dmesg("x"), "vm.dmesg: since='x' is no number of a record"),
        (lambda vm: vm.power_cut(kernel=6.1), "kernel=6.1 is no spec, such as '6.1', and no Kernel"),
    ],
)
def test_what_is_wrong_is_named_on_the_host(
    vm: VM, machine: FakeMachine, use: Callable[[VM], object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        use(vm)
    assert machine.calls == []


def test_a_program_that_is_not_there_comes_with_advice(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(127, stderr="[Errno 2] No such file or directory: 'setfattr'\n")
    with pytest.raises(GuestCommandError, match=r"(?s)failed with 127 .*'setfattr'\n\(.*vm.install"):
        vm.run(["setfattr"], check=True)
    machine.answers["run"] = ran(1)
    with pytest.raises(GuestCommandError) as caught:
        vm.run(["false"], check=True)
    assert "vm.install" not in caught.value.message
