"""Python functions of a test, run in the guest."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from pytest_kernelfs import VM
from pytest_kernelfs.errors import GuestCommandError

FACTOR = 3


def _times(number: int) -> int:
    return number * FACTOR


def _release_and(number: int) -> tuple[str, int]:
    return platform.release(), _times(number)


def _fail(text: str) -> None:
    raise ValueError(text)


def _echo(value: object) -> object:
    return value


def test_a_function_takes_its_helpers_along(vm: VM) -> None:
    assert vm.call(_release_and, 14) == (vm.kernel.release, 42)


def _exit(code: int) -> None:
    sys.exit(code)


def test_a_function_that_exits_fails_and_the_machine_goes_on(vm: VM) -> None:
    with pytest.raises(GuestCommandError, match="_exit raised SystemExit in the guest: 3"):
        vm.call(_exit, 3)
    assert vm.call(_echo, 1) == 1


def test_plain_values_go_there_and_back(vm: VM) -> None:
    value = [None, True, -1, 2**40, 1.5, "ü", b"\0\xff", (1, 2), {"a": [1]}]
    assert vm.call(_echo, value) == value


def test_an_exception_comes_back_with_its_place(vm: VM) -> None:
    with pytest.raises(GuestCommandError, match="_fail raised ValueError in the guest: no way") as caught:
        vm.call(_fail, "no way")
    assert "Traceback" in str(caught.value)


def test_calls_share_one_process_which_is_not_init(vm: VM) -> None:
    assert vm.call(_pid) == vm.call(_pid) != 1


def _pid() -> int:
    return os.getpid()
