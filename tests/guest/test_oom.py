"""What goes first when memory runs out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_kernelfs

# In a process of its own, which then has the score of a conversation.
PROTECTED = """
import os, subprocess
from pytest_kernelfs.guest import oom

def score(who="self"):
    with open(f"/proc/{who}/oom_score_adj") as file:
        return int(file.read())

def child():
    with oom.expendable():
        process = subprocess.Popen(["cat", "/proc/self/oom_score_adj"], stdout=subprocess.PIPE)
    return int(process.communicate()[0])

def fork():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(score()).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reader, 100))

oom.protect()
print(score(), child(), fork(), score())
"""


def test_what_a_protected_process_starts_is_as_killable_as_any() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(pytest_kernelfs.__file__).parents[1])}
    printed = subprocess.check_output([sys.executable, "-c", PROTECTED], env=environment)
    if printed.startswith(b"0"):
        pytest.skip("to be killed later than others takes CAP_SYS_RESOURCE")
    assert printed.split() == [b"-999", b"0", b"0", b"-999"]


def test_without_protection_nothing_changes() -> None:
    from pytest_kernelfs.guest import oom

    before = Path("/proc/self/oom_score_adj").read_text()
    with oom.expendable():
        assert Path("/proc/self/oom_score_adj").read_text() == before
