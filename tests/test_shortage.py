"""What a host may lack at one moment and have at the next."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.shortage import Shortage, shortage


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EMFILE, "this process has as many files open as it may"),
        (errno.ENFILE, "this host has as many files open as it may"),
        (errno.EAGAIN, "no more processes may be started"),
        (errno.ENOMEM, "there is no memory for it"),
    ],
)
def test_what_is_lacking_is_told_with_what_to_do(code: int, said: str) -> None:
    with (
        pytest.raises(Shortage, match=f"^cannot make a disk in /there: {said}.*; run fewer tests at once"),
        explain_os_errors("make a disk", Path("/there")),
    ):
        raise OSError(code, "as the system says it")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO, errno.ENOSPC, None])
def test_other_errors_are_none(code: int | None) -> None:
    assert shortage("make a disk", OSError(code, "as the system says it")) is None
