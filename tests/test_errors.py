"""The exception family travels between processes."""

from __future__ import annotations

import copy
import pickle

import pytest

from pytest_kernelfs import errors
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.run import KernelsUnresolved

FAMILY = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KernelfsError)
]
FAMILY += [ChannelLost, KernelsUnresolved]


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_kind_and_message(kind: type[KernelfsError], protocol: int) -> None:
    back = pickle.loads(pickle.dumps(kind("what was seen\nand what to do"), protocol))
    assert type(back) is kind
    assert back.message == str(back) == "what was seen\nand what to do"


@pytest.mark.parametrize("kind", FAMILY)
def test_a_copy_keeps_the_message(kind: type[KernelfsError]) -> None:
    assert copy.copy(kind("seen")).message == "seen"


def test_a_kernel_that_is_not_found_is_a_wrong_use() -> None:
    assert issubclass(errors.KernelNotFound, errors.UsageError)


def test_a_panic_is_a_misbehaving_kernel() -> None:
    assert issubclass(errors.KernelPanic, errors.KernelMisbehaved)


@pytest.mark.parametrize("kind", [errors.InfrastructureError, errors.ProviderUnavailable, errors.UsageError])
def test_what_is_our_fault_is_never_the_kernels(kind: type[KernelfsError]) -> None:
    assert not issubclass(kind, errors.KernelMisbehaved)
